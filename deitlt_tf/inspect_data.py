"""Check a data set before days of training: missing, unreadable and doubled images, the class profile, the weights.

    python -m deitlt_tf.inspect_data --flagfile=configs/places_lt.cfg --data_dir=places [--workdir=D] [--decode]

takes the recipe of a training run and tells what that run would meet; exit code 1 if it would fail. Of an image, only
header and end are read, or all of it with --decode. With --workdir=D all findings are in D/inspect.json, the class
profile is D/profile.svg.
"""

import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from deitlt_tf import options
from deitlt_tf.data import sources, storage, survey
from deitlt_tf.data.splits import Source, Splits
from deitlt_tf.data.survey import Look

SHOWN = 10  # of anything that can be long; inspect.json has all
LISTED = ("list", "inat")  # sources that refuse missing images, --skip_bad_images or not
QUANTILES = {"min": 0, "5 %": 5, "median": 50, "95 %": 95, "max": 100}
COLOURS = {"head": "#3b6fb6", "mid": "#e3a23b", "tail": "#c2413b"}
LOWEST = 0.7  # of the plot: below it, a class of one image still has height on a logarithmic axis


def main(flags: SimpleNamespace) -> None:
    from deitlt_tf import workdir

    report = inspect(flags)
    print("\n".join(lines(report)))
    if flags.workdir:
        folder = Path(flags.workdir)
        workdir.write_json(folder / "inspect.json", report)
        with workdir.replacing(folder / "profile.svg") as path:
            plot(np.array(report["classes"]["train"]), path)
        print(f"\nwritten: {folder / 'inspect.json'}, {folder / 'profile.svg'}")
    if report["errors"]:
        raise ValueError(f"training would fail: see {_number(len(report['errors']), 'error')} above.")


def inspect(flags: SimpleNamespace) -> dict[str, Any]:
    """All findings, ready for JSON; `errors` are sentences on what training would fail at, `warnings` on the rest."""
    splits, errors = load(flags)
    parts = {name: part for name, part in vars(splits).items() if part is not None}
    names = {name: sources.names(part) for name, part in parts.items()}
    looks = look({name: part for name, part in parts.items() if part.kind != "pixels"}, flags)
    copies = survey.copies({name: (parts[name], looks[name]) for name in looks}, title="comparing equal sizes")
    missing = missing_files(parts, looks, root=image_root(flags))
    unreadable = {name: [x.problem for x in seen if x.problem and not x.missing] for name, seen in looks.items()}
    skip_bad = flags.skip_bad_images
    skip_missing = skip_bad and flags.data not in LISTED
    left = {name: part.labels for name, part in parts.items()}
    if skip_bad:
        kept = {name: [not x.problem or (x.missing and not skip_missing) for x in looks[name]] for name in looks}
        left |= {name: left[name][kept[name]] for name in looks}
    counts = {name: sources.class_counts(labels, len(splits.train.class_names)) for name, labels in left.items()}

    doubts = {name: [x.doubt for x in seen if x.doubt] for name, seen in looks.items()}
    warnings = on_images(doubts, "may be damaged, but can be decoded")
    (warnings if skip_missing else errors).extend(on_missing(**missing, root=image_root(flags)))
    (warnings if skip_bad else errors).extend(on_images(unreadable, "cannot be read"))
    class_names = np.array(splits.train.class_names, object)
    present = np.isin(np.arange(len(class_names)), splits.train.labels)
    if (emptied := class_names[present & (counts["train"] == 0)]).size:
        errors.append(f"no readable training image is left of {_some(emptied, 'class')}")
    errors += [f"no readable image is left of {name}" for name, labels in left.items() if not len(labels)]
    for name, count in counts.items():
        if name != "train" and (without := class_names[count == 0]).size:
            warnings.append(f"{name} has no images of {_some(without, 'class')}: no accuracy can be measured there")
    warnings += on_copies(copies, labels={name: part.labels for name, part in parts.items()}, names=names)
    return {
        "data": flags.data,
        "splits": {name: describe(part, looks.get(name)) for name, part in parts.items()},
        "classes": {"names": list(class_names), **{name: count.tolist() for name, count in counts.items()}},
        "imbalance": float(counts["train"].max() / counts["train"].min()) if counts["train"].min() else None,
        "groups": group_sizes(counts["train"]),
        "weights": class_weights(flags, counts["train"]),
        "missing": missing,
        "unreadable": unreadable,
        "copies": [[[split, names[split][index]] for split, index in group] for group in copies],
        "warnings": warnings,
        "errors": errors,
    }


def load(flags: SimpleNamespace) -> tuple[Splits, list[str]]:
    """The splits, with missing images in place, and what is wrong with lists and folders, a sentence each.

    Raises what `sources.load` raises where nothing can be read on; the sentences are printed before.
    """
    errors: list[str] = []
    # every keyword of `sources.load` but `complain` is a flag
    keywords = {name: value for name, value in vars(flags).items() if name in sources.load.__kwdefaults__}
    try:
        return sources.load(flags.data, complain=lambda error: errors.append(str(error)), **keywords), errors
    except (ValueError, OSError):
        print("".join(f"error: {error}\n" for error in errors), end="")
        raise


def look(parts: dict[str, Source], flags: SimpleNamespace) -> dict[str, list[Look]]:
    """What every image shows: from its header, and from the decoder where that is in doubt (--decode: everywhere)."""
    from deitlt_tf import assemble
    from deitlt_tf.data import decode

    limit = assemble.max_pixels(flags)
    looks = {name: survey.look(part, max_pixels=limit, title=f"{name}: headers") for name, part in parts.items()}
    checked = [
        (name, index)
        for name, seen in looks.items()
        for index, x in enumerate(seen)
        if not x.missing and (x.problem or flags.decode)
    ]
    if checked:
        images = (parts[name].images[index] for name, index in checked)
        names = {name: sources.names(part) for name, part in parts.items()}
        bad = dict(decode.bad_images(images, [names[name][index] for name, index in checked], max_pixels=limit))
        for i, (name, index) in enumerate(checked):
            seen = looks[name][index]
            if i in bad:
                looks[name][index] = seen._replace(problem=seen.problem or bad[i])
            else:
                looks[name][index] = seen._replace(problem="", doubt=seen.problem)
    return looks


def image_root(flags: SimpleNamespace) -> str:
    """The folder that archives are unpacked in: where the paths of lists begin."""
    root = os.path.expanduser(flags.data_dir) or os.curdir
    return storage.join(root, flags.image_root) if flags.data in LISTED else root


def missing_files(parts: dict[str, Source], looks: dict[str, list[Look]], *, root: str) -> dict[str, Any]:
    """files: all that are missing, relative to root. folders: {folder missing as a whole: listed images in it}."""
    paths = {name: part.images for name, part in parts.items() if part.kind == "paths"}
    relative = {name: [path.removeprefix(os.path.join(root, "")) for path in paths[name]] for name in paths}
    files = [path for name in paths for path, x in zip(relative[name], looks[name], strict=True) if x.missing]
    return {"files": files, "folders": survey.absent_folders(itertools.chain(*relative.values()), files)}


def describe(source: Source, looks: list[Look] | None) -> dict[str, Any]:
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
    from deitlt_tf import metrics

    return {
        convention: {
            group: {"classes": len(members), "images": int(counts[members].sum())}
            for group, members in metrics.groups(counts, convention).items()
        }
        for convention in ("shots", "paper")
    }


def class_weights(flags: SimpleNamespace, counts: np.ndarray) -> dict[str, dict[str, float | None]]:
    """{student, teacher: beta, epoch they begin at (None: never), smallest and largest weight, their ratio}."""
    from deitlt_tf import assemble, losses

    if counts.min() == 0:
        return {}
    found = {}
    for network, beta, epoch in (
        ("student", flags.beta, assemble.reweight_epoch(flags)),
        ("teacher", flags.teacher_beta, flags.teacher_reweight_epoch),
    ):
        weights = losses.class_balanced_weights(counts, beta)
        low, high = float(weights.min()), float(weights.max())
        found[network] = {"beta": beta, "from_epoch": epoch if epoch >= 0 else None}
        found[network] |= {"smallest": low, "largest": high, "span": high / low}
    return found


def on_missing(*, files: list[str], folders: dict[str, int], root: str) -> list[str]:
    """A sentence per folder that is missing as a whole, usually an archive, and one on all other missing files."""
    sentences = []
    beside = [os.path.join(root, name) for name in storage.subfolders(root)] if folders else []
    for folder, count in list(folders.items())[:SHOWN]:
        here = root if storage.is_url(root) else os.path.normpath(root)
        advice = f"unpack its archive in {here}, or name the folder where it lies with --image_root"
        found = storage.each(storage.is_dir, [os.path.join(other, folder) for other in beside])
        if elsewhere := list(itertools.compress(beside, found)):
            advice = f"it lies in {elsewhere[0]}: name that with --image_root"
        sentences.append(f"{folder}/ is missing with all {_number(count, 'image')} listed in it: {advice}")
    if len(folders) > SHOWN:
        sentences.append(f"{_number(len(folders) - SHOWN, 'more folder')} missing like that")
    if single := len(files) - sum(folders.values()):
        first = next(path for path in files if not path.startswith(tuple(f"{folder}/" for folder in folders)))
        where = "" if not folders else " elsewhere"
        sentences.append(f"{_number(single, 'image')} missing{where}, the first is {os.path.join(root, first)}")
    return sentences


def on_images(problems: dict[str, list[str]], what: str) -> list[str]:
    """A sentence per split with problems: how many images, and the first problem."""
    return [
        f"{_number(len(found), 'image')} of {name} {what}, the first is {found[0]}"
        for name, found in problems.items()
        if found
    ]


def on_copies(
    groups: list[list[tuple[str, int]]], *, labels: dict[str, np.ndarray], names: dict[str, list[str]]
) -> list[str]:
    """A sentence for each pair of splits that share images, for copies within a split, and for differing labels."""
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    differing = []
    for group in groups:
        first: dict[str, str] = {}
        for split, index in group:
            for earlier, original in first.items():
                pairs[earlier, split].append(f"{original} = {names[split][index]}")
            first.setdefault(split, names[split][index])
        of_label = {labels[split][index]: names[split][index] for split, index in group}
        if len(of_label) > 1:
            differing.append(" = ".join(list(of_label.values())[:3]) + (" = ..." if len(of_label) > 3 else ""))
    sentences = []
    for (earlier, split), found in sorted(pairs.items(), key=lambda item: [list(names).index(s) for s in item[0]]):
        what = f"are copies of others in {split}" if earlier == split else f"are also in {earlier}"
        sentences.append(f"{_number(len(found), 'image')} of {split} {what}, e.g. {found[0]}")
    if differing:
        example = min(differing, key=len)
        sentences.append(f"{_number(len(differing), 'image')} with copies of another label, e.g. {example}")
    return sentences


def lines(report: dict[str, Any]) -> Iterator[str]:
    """The report as a person reads it."""
    classes, splits = report["classes"], report["splits"]
    yield f"{report['data']}: {_number(len(classes['names']), 'class')}"
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
        ranked[SHOWN:-SHOWN] = [f"    ... {_number(len(ranked) - 2 * SHOWN, 'class')} between"]
    yield from ranked
    yield "\ngroups by training images: shots > 100, 20..100, < 20; paper by rank"
    for convention, groups in report["groups"].items():
        cells = [f"{group} {_number(n['classes'], 'class')}, {n['images']} images" for group, n in groups.items()]
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
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    from deitlt_tf import metrics

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = {"shots": "shots: > 100, 20..100, < 20 images", "paper": "paper: fixed numbers of classes"}
    for panel, (convention, title) in zip(panels, titles.items(), strict=True):
        start = 0
        for group, members in metrics.groups(counts, convention).items():
            heights = np.sort(counts[members])[::-1]
            edges = start + 0.5 + np.arange(len(members) + 1)
            label = f"{group}: {_number(len(members), 'class')}"
            heights = np.maximum(heights, LOWEST)
            panel.stairs(heights, edges, baseline=LOWEST, fill=True, color=COLOURS[group], label=label)
            start += len(members)
        panel.set(title=title, xlabel="rank of the class", yscale="log", ylim=(LOWEST, None), xlim=(0.5, start + 0.5))
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.legend()
    panels[0].set_ylabel("training images")
    with matplotlib.rc_context({"svg.hashsalt": "profile"}):  # the same data, the same file
        figure.savefig(path, format="svg", metadata={"Date": None})


def _number(count: int, word: str) -> str:
    plural = "es" if word.endswith("s") else "s"
    return f"{count} {word}{plural if count != 1 else ''}"


def _some(names: np.ndarray, word: str) -> str:
    """`3 classes (a, b, c)`, a long list cut off."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{_number(len(names), word)} ({', '.join(names[:SHOWN])}{more})"


if __name__ == "__main__":
    options.program(main, __doc__, takes=("decode",))
