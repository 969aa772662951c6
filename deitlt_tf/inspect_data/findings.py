"""What is wrong with a data set, a sentence each: errors that training would fail at, and warnings."""

import itertools
import os
from collections import defaultdict
from typing import Any

import numpy as np

from deitlt_tf.data import decode, sources, storage
from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.inspect_data import summary, survey
from deitlt_tf.inspect_data.words import SHOWN, number_of, some_of
from deitlt_tf.recipes.recipe import Data, Recipe

LISTED = ("list", "inat")  # sources that refuse missing images, --skip_bad_images or not


def inspect(recipe: Recipe, *, every_image: bool = False) -> dict[str, Any]:
    """All findings, ready for JSON; `errors` are sentences on what training would fail at, `warnings` on the rest.

    every_image: decode all images, and not only those whose header is in doubt.
    """
    data = recipe.data
    splits, errors = load(data)
    parts = {name: part for name, part in vars(splits).items() if part is not None}
    names = {name: sources.names(part) for name, part in parts.items()}
    looks = look({name: part for name, part in parts.items() if part.kind != "pixels"}, data, every_image=every_image)
    copies = survey.copies({name: (parts[name], looks[name]) for name in looks}, title="comparing equal sizes")
    missing = missing_files(parts, looks, root=image_root(data))
    unreadable = {name: [x.problem for x in seen if x.problem and not x.missing] for name, seen in looks.items()}
    skip_bad = data.skip_bad_images
    skip_missing = skip_bad and data.name not in LISTED
    left = {name: part.labels for name, part in parts.items()}
    if skip_bad:
        kept = {name: [not x.problem or (x.missing and not skip_missing) for x in looks[name]] for name in looks}
        left |= {name: left[name][kept[name]] for name in looks}
    counts = {name: sources.class_counts(labels, len(splits.train.class_names)) for name, labels in left.items()}

    doubts = {name: [x.doubt for x in seen if x.doubt] for name, seen in looks.items()}
    warnings = on_images(doubts, "may be damaged, but can be decoded")
    (warnings if skip_missing else errors).extend(on_missing(**missing, root=image_root(data)))
    (warnings if skip_bad else errors).extend(on_images(unreadable, "cannot be read"))
    class_names = np.array(splits.train.class_names, object)
    present = np.isin(np.arange(len(class_names)), splits.train.labels)
    if (emptied := class_names[present & (counts["train"] == 0)]).size:
        errors.append(f"no readable training image is left of {some_of(emptied, 'class')}")
    errors += [f"no readable image is left of {name}" for name, labels in left.items() if not len(labels)]
    for name, count in counts.items():
        if name != "train" and (without := class_names[count == 0]).size:
            warnings.append(f"{name} has no images of {some_of(without, 'class')}: no accuracy can be measured there")
    warnings += on_copies(copies, labels={name: part.labels for name, part in parts.items()}, names=names)
    return {
        "data": data.name,
        "splits": {name: summary.describe(part, looks.get(name)) for name, part in parts.items()},
        "classes": {"names": list(class_names), **{name: count.tolist() for name, count in counts.items()}},
        "imbalance": float(counts["train"].max() / counts["train"].min()) if counts["train"].min() else None,
        "groups": summary.group_sizes(counts["train"]),
        "weights": summary.class_weights(recipe, counts["train"]),
        "missing": missing,
        "unreadable": unreadable,
        "copies": [[[split, names[split][index]] for split, index in group] for group in copies],
        "warnings": warnings,
        "errors": errors,
    }


def load(data: Data) -> tuple[Splits, list[str]]:
    """The splits, with missing images in place, and what is wrong with lists and folders, a sentence each.

    Raises what `sources.load` raises where nothing can be read on; the sentences are printed before.
    """
    errors: list[str] = []
    try:
        return sources.load(data.name, complain=lambda error: errors.append(str(error)), **data.source()), errors
    except (ValueError, OSError):
        print("".join(f"error: {error}\n" for error in errors), end="")
        raise


def look(parts: dict[str, Source], data: Data, *, every_image: bool) -> dict[str, list[survey.Look]]:
    """What every image shows: from its header, and from the decoder where that is in doubt or everywhere."""
    limit = data.max_pixels
    looks = {name: survey.look(part, max_pixels=limit, title=f"{name}: headers") for name, part in parts.items()}
    checked = [
        (name, index)
        for name, seen in looks.items()
        for index, x in enumerate(seen)
        if not x.missing and (x.problem or every_image)
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


def image_root(data: Data) -> str:
    """The folder that archives are unpacked in: where the paths of lists begin."""
    root = os.path.expanduser(data.data_dir) or os.curdir
    return storage.join(root, data.image_root) if data.name in LISTED else root


def missing_files(parts: dict[str, Source], looks: dict[str, list[survey.Look]], *, root: str) -> dict[str, Any]:
    """files: all that are missing, relative to root. folders: {folder missing as a whole: listed images in it}."""
    paths = {name: part.images for name, part in parts.items() if part.kind == "paths"}
    relative = {name: [path.removeprefix(os.path.join(root, "")) for path in paths[name]] for name in paths}
    files = [path for name in paths for path, x in zip(relative[name], looks[name], strict=True) if x.missing]
    return {"files": files, "folders": survey.absent_folders(itertools.chain(*relative.values()), files)}


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
        sentences.append(f"{folder}/ is missing with all {number_of(count, 'image')} listed in it: {advice}")
    if len(folders) > SHOWN:
        sentences.append(f"{number_of(len(folders) - SHOWN, 'more folder')} missing like that")
    if single := len(files) - sum(folders.values()):
        first = next(path for path in files if not path.startswith(tuple(f"{folder}/" for folder in folders)))
        where = "" if not folders else " elsewhere"
        sentences.append(f"{number_of(single, 'image')} missing{where}, the first is {os.path.join(root, first)}")
    return sentences


def on_images(problems: dict[str, list[str]], what: str) -> list[str]:
    """A sentence per split with problems: how many images, and the first problem."""
    return [
        f"{number_of(len(found), 'image')} of {name} {what}, the first is {found[0]}"
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
        sentences.append(f"{number_of(len(found), 'image')} of {split} {what}, e.g. {found[0]}")
    if differing:
        example = min(differing, key=len)
        sentences.append(f"{number_of(len(differing), 'image')} with copies of another label, e.g. {example}")
    return sentences
