"""A data set in numbers: sizes, formats, groups, class weights; as text and as a plot."""

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
from deitlt_tf.evaluation import metrics
from deitlt_tf.inspect_data import survey
from deitlt_tf.inspect_data.words import SHOWN, number_of
from deitlt_tf.recipes.recipe import Recipe

QUANTILES = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}
COLOURS = {"head": "#3b6fb6", "mid": "#e3a23b", "tail": "#c2413b"}
LOWEST = 0.7  # of the plot: below it, a class of one image still has height on a logarithmic axis


def describe(source: Source, looks: list[survey.Look] | None) -> dict[str, Any]:
    """One split: how many images and classes, what is wrong with how many, formats, and quantiles of their sides."""
    if looks is None:
        height, width = source.images.shape[1:3]
        sides, formats = np.array([[width, height]]), {"pixels": len(source)}
    else:
        known = [x.header for x in looks if x.header and not x.problem]
        sides = np.array([header[1:] for header in known]).reshape(-1, 2)
        formats = dict(Counter(header.format for header in known).most_common())
    quantiles = np.percentile(sides, list(QUANTILES.values()), axis=0, method="nearest") if len(sides) else []
    return {
        "images": len(source),
        "classes": len(np.unique(source.labels)),
        "missing": sum(x.missing for x in looks or ()),
        "unreadable": sum(bool(x.problem) and not x.missing for x in looks or ()),
        "formats": formats,
        "width": {name: int(width) for name, (width, _) in zip(QUANTILES, quantiles, strict=False)},
        "height": {name: int(height) for name, (_, height) in zip(QUANTILES, quantiles, strict=False)},
    }


def group_sizes(counts: np.ndarray) -> dict[str, dict[str, dict[str, int]]]:
    """{convention: {head, mid, tail: {classes, images}}} of the training images."""
    return {
        convention: {
            group: {"classes": len(members), "images": int(counts[members].sum())}
            for group, members in metrics.groups(counts, convention).items()
        }
        for convention in ("shots", "paper")
    }


def class_weights(recipe: Recipe, counts: np.ndarray) -> dict[str, dict[str, float | None]]:
    """{student, teacher: beta, epoch they begin at (None: never), smallest and largest weight, their ratio}."""
    if counts.min() == 0:
        return {}
    student, teacher = recipe.student, recipe.teacher
    found = {}
    for network, beta, epoch in (
        ("student", student.schedule.beta, student.reweight_epoch),
        ("teacher", teacher.schedule.beta, teacher.schedule.reweight_epoch),
    ):
        weights = losses.class_balanced_weights(counts, beta)
        low, high = float(weights.min()), float(weights.max())
        found[network] = {"beta": beta, "from_epoch": epoch if epoch >= 0 else None}
        found[network] |= {"smallest": low, "largest": high, "span": high / low}
    return found


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as a person reads it."""
    classes, splits = report["classes"], report["splits"]
    yield f"{report['data']}: {number_of(len(classes['names']), 'class')}"
    yield "        images  classes  missing  unreadable  width x height (min median max); formats"
    for name, part in splits.items():
        numbers = f"{part['images']:>8} {part['classes']:>8} {part['missing']:>8} {part['unreadable']:>11}"
        width, height = (
            " ".join(str(part[side].get(q, "-")) for q in ("min", "median", "max")) for side in ("width", "height")
        )
        formats = ", ".join(f"{count} {kind}" for kind, count in part["formats"].items())
        yield f"{name:<6}{numbers}  {width} x {height}; {formats or '-'}"
    ratio = f"{report['imbalance']:.4g}" if report["imbalance"] else "infinite"
    yield f"\nimages per class, by rank in train; imbalance ratio {ratio}"
    yield "        " + " ".join(f"{name:>7}" for name in splits)
    order = np.argsort(-np.array(classes["train"]), kind="stable").tolist()
    ranked = [
        f"{rank:>7} {' '.join(f'{classes[name][label]:>7}' for name in splits)}  {classes['names'][label]}"
        for rank, label in enumerate(order, start=1)
    ]
    if len(ranked) > 2 * SHOWN:
        ranked[SHOWN:-SHOWN] = [f"    ... {number_of(len(ranked) - 2 * SHOWN, 'class')} between"]
    yield from ranked
    yield "\ngroups by training images: shots > 100, 20..100, < 20; paper by rank"
    for convention, groups in report["groups"].items():
        cells = [f"{group} {number_of(n['classes'], 'class')}, {n['images']} images" for group, n in groups.items()]
        yield f"  {convention}: {'; '.join(cells)}"
    for network, found in report["weights"].items():
        when = "never used" if found["from_epoch"] is None else f"from epoch {found['from_epoch']} on"
        span = f"{found['smallest']:.4g} to {found['largest']:.4g}, {found['span']:.4g} to 1"
        yield f"class weights of the {network}, {when}: {span} (beta {found['beta']:g})"
    for kind in ("warnings", "errors"):
        if report[kind]:
            yield f"\n{kind}"
            yield from (f"  {sentence}" for sentence in report[kind])
    if not report["errors"]:
        yield "\nnothing was found that training would fail at"


def plot(counts: np.ndarray, path: Path) -> None:
    """Training images of the classes by rank, head, mid and tail coloured, under both conventions, as SVG."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"shots": "shots: > 100, 20..100, < 20 images", "paper": "paper: fixed numbers of classes"}
    for panel, (convention, title) in zip(panels, titles.items(), strict=True):
        start = 0
        for group, members in metrics.groups(counts, convention).items():
            heights = np.sort(counts[members])[::-1]
            edges = start + 0.5 + np.arange(len(members) + 1)
            label = f"{group}: {number_of(len(members), 'class')}"
            heights = np.maximum(heights, LOWEST)
            panel.stairs(heights, edges, baseline=LOWEST, fill=True, color=COLOURS[group], label=label)
            start += len(members)
        panel.set(title=title, xlabel="rank of the class", yscale="log", ylim=(LOWEST, None), xlim=(0.5, start + 0.5))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend()
    panels[0].set_ylabel("training images")
    with matplotlib.rc_context({"svg.hashsalt": "profile"}):  # the same data, the same file
        figure.savefig(path, format="svg", metadata={"Date": None})
