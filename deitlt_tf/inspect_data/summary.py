"""A data set in numbers, as text and as a plot: sizes, formats, groups, class weights."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from deitlt_tf import losses
from deitlt_tf.data.dataset import Source
from deitlt_tf.evaluation import metrics, tables
from deitlt_tf.inspect_data import survey
from deitlt_tf.inspect_data.words import MAX_LISTED, number_of
from deitlt_tf.recipes.recipe import Recipe

QUANTILES = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}
COLOURS = {"head": "#3b6fb6", "mid": "#e3a23b", "tail": "#c2413b"}
SMALL, PHOTOGRAPH = 56, 160  # pixels: images below are small ones, and from here on photographs
LOWEST = 0.7  # where the plot's logarithmic axis begins; below 1, so that a class of one image has a visible height


def describe(source: Source, checks: list[survey.FileCheck] | None) -> dict[str, Any]:
    """One split: numbers of images, classes, missing and unreadable images; formats; quantiles of width and height.

    checks: of its files; None for a source of pixels.
    """
    formats: dict[str, int]
    if checks is None:
        height, width = source.images.shape[1:3]
        sides, formats = np.array([[width, height]]), {"pixels": len(source)}
    else:
        good = [check.header for check in checks if check.header and not check.problem]
        sides = np.array([header[1:3] for header in good]).reshape(-1, 2)
        formats = dict(Counter(header.format for header in good).most_common())
    quantiles = np.percentile(sides, list(QUANTILES.values()), axis=0, method="nearest") if len(sides) else []
    return {
        "images": len(source),
        "classes": len(np.unique(source.labels)),
        "missing": sum(check.missing for check in checks or ()),
        "unreadable": sum(bool(check.problem) and not check.missing for check in checks or ()),
        "formats": formats,
        "width": {name: int(width) for name, (width, _) in zip(QUANTILES, quantiles, strict=False)},
        "height": {name: int(height) for name, (_, height) in zip(QUANTILES, quantiles, strict=False)},
    }


def group_sizes(counts: np.ndarray) -> dict[str, dict[str, dict[str, int]]]:
    """{convention: {head, mid, tail: {classes, images}}} of the training images. counts: int [C]."""
    return {
        convention: {
            group: {"classes": len(members), "images": int(counts[members].sum())}
            for group, members in metrics.groups(counts, convention).items()
        }
        for convention in ("shots", "paper")
    }


def class_weights(recipe: Recipe, counts: np.ndarray) -> dict[str, dict[str, float | None]]:
    """{student, teacher: {beta, from_epoch (None: never), smallest, largest, span}}, span = largest / smallest.

    counts: int [C], training images per class. The result is {} if a class has no training image.
    """
    if counts.min() == 0:
        return {}
    student, teacher = recipe.student, recipe.teacher
    values: dict[str, dict[str, float | None]] = {}
    for network, beta, epoch in (
        ("student", student.schedule.beta, student.reweight_epoch),
        ("teacher", teacher.schedule.beta, teacher.schedule.reweight_epoch),
    ):
        weights = losses.class_balanced_weights(counts, beta)
        low, high = float(weights.min()), float(weights.max())
        values[network] = {"beta": beta, "from_epoch": epoch if epoch >= 0 else None}
        values[network] |= {"smallest": low, "largest": high, "span": high / low}
    return values


def next_commands(recipe: Recipe, train: dict[str, Any]) -> dict[str, str]:
    """{when: command}: what fits these data next, with and without weights that were trained on other images.

    train: `describe` of the training images, whose shorter median side decides.
    """
    data = recipe.data_arguments()
    side = min(train["width"].get("median", 0), train["height"].get("median", 0))
    photographs = side >= PHOTOGRAPH
    quick = f"python -m deitlt_tf.quick {data}{' --image_size=224' if photographs else ''} --workdir=runs/quick"
    if "epochs" in recipe.explicit_flags:  # the recipe of a training run was given
        own, time = "python -m deitlt_tf.train, with the flags of this command", "hours"
    else:
        name = "folder" if photographs else "folder_small" if side < SMALL else "folder_medium"
        own = f"python -m deitlt_tf.train --flagfile={name}.cfg {data} --workdir=runs/first"
        time = "a day on a GPU"
        if not photographs:
            time = f"12,000 in an hour on two cores; ten minutes: {name}_minutes.cfg, a night: {name}_night.cfg"
    return {
        "if you may use weights that were trained on ImageNet (minutes)": quick,
        f"if the network may learn from these images alone ({time})": own,
    }


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as text, line by line. report: from `findings.inspect`."""
    classes, splits = report["classes"], report["splits"]
    yield f"{report['data']}: {number_of(len(classes['names']), 'class')}"
    if report.get("taxonomy"):
        yield "taxonomy: " + ", ".join(f"{count} {rank}" for rank, count in report["taxonomy"].items())
    yield "        images  classes  missing  unreadable  width x height (min median max); formats"
    for name, part in splits.items():
        numbers = f"{part['images']:>8} {part['classes']:>8} {part['missing']:>8} {part['unreadable']:>11}"
        width, height = (
            " ".join(str(part[side].get(q, "-")) for q in ("min", "median", "max")) for side in ("width", "height")
        )
        formats = ", ".join(f"{count} {kind}" for kind, count in part["formats"].items())
        yield f"{name:<6}{numbers}  {width} x {height}; {formats or '-'}"
    for name, count in report["shared_groups"].items():
        yield f"{count} of {splits[name]['images']} images of {name} share an observation or group with training images"
    ratio = f"{report['imbalance']:.4g}" if report["imbalance"] else "infinite"
    yield f"\nimages per class, by rank in train; imbalance ratio {ratio}"
    yield "        " + " ".join(f"{name:>7}" for name in splits)
    order = np.argsort(-np.array(classes["train"]), kind="stable").tolist()
    ranked = [
        f"{rank:>7} {' '.join(f'{classes[name][label]:>7}' for name in splits)}  {classes['names'][label]}"
        for rank, label in enumerate(order, start=1)
    ]
    if len(ranked) > 2 * MAX_LISTED:
        ranked[MAX_LISTED:-MAX_LISTED] = [f"    ... {number_of(len(ranked) - 2 * MAX_LISTED, 'class')} between"]
    yield from ranked
    yield "\ngroups by training images"
    for convention, groups in report["groups"].items():
        yield f"  {tables.describe_groups(classes['train'], convention)}"
        cells = [f"{n['images']} images in {group}" for group, n in groups.items() if n["classes"]]
        if cells:
            yield f"    {', '.join(cells)}"
    for network, weights in report["weights"].items():
        when = "never used" if weights["from_epoch"] is None else f"from epoch {weights['from_epoch']} on"
        span = f"{weights['smallest']:.4g} to {weights['largest']:.4g}, {weights['span']:.4g} to 1"
        yield f"class weights of the {network}, {when}: {span} (beta {weights['beta']:g})"
    for kind in ("warnings", "errors"):
        if report[kind]:
            yield f"\n{kind}"
            yield from (f"  {sentence}" for sentence in report[kind])
    if not report["errors"]:
        yield "\nnothing was found that training would fail at"
        yield "\nnext"
        for when, command in report["next"].items():
            yield from (f"  {when}:", f"    {command}")


def plot(counts: np.ndarray, path: Path) -> None:
    """Write an SVG of the training images per class by rank, coloured by group, one panel for each convention.

    counts: int [C]. path: of the file.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {
        "shots": "shots: > 100, 20..100, < 20 images",
        "paper": "paper: fixed numbers of classes",
        "rank": "rank: 30, 40 and 30 % of the classes",
    }
    for panel, convention in zip(panels, ("shots", "paper"), strict=True):
        title = titles[tables.convention_title(counts, convention)]
        groups, start = metrics.groups(counts, convention), 0
        if not any(map(len, groups.values())):
            groups = {"no head and no tail": np.arange(len(counts))}
        for group, members in groups.items():
            heights = np.sort(counts[members])[::-1]
            edges = start + 0.5 + np.arange(len(members) + 1)
            label = f"{group}: {number_of(len(members), 'class')}"
            heights = np.maximum(heights, LOWEST)
            panel.stairs(heights, edges, baseline=LOWEST, fill=True, color=COLOURS.get(group, "#888888"), label=label)
            start += len(members)
        panel.set(title=title, xlabel="rank of the class", yscale="log", ylim=(LOWEST, None), xlim=(0.5, start + 0.5))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend()
    panels[0].set_ylabel("training images")
    with matplotlib.rc_context({"svg.hashsalt": "profile"}):  # so that the same data give the same file
        figure.savefig(path, format="svg", metadata={"Date": None})
