"""Find what is wrong with a data set: a sentence for each error that would stop training, and for each warning."""

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deitlt_tf.data import decode, sources, storage
from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.inspect_data import headers, summary, survey
from deitlt_tf.inspect_data.words import MAX_LISTED, number_of, some_of
from deitlt_tf.recipes.checks import mistakes
from deitlt_tf.recipes.data import Data
from deitlt_tf.recipes.recipe import Recipe

LISTED = ("list", "inat")  # sources that refuse missing images, even with `skip_bad_images`
DEEP_SAMPLE = 16  # images of 16 bits that are decoded, to see how bright they are
DARK = 2**13  # of 2**16: images of 12 bits that were stored in 16 stay below half of it

# {remark of a header: the end of the sentence "N images ..." in the report}
REMARKS = {
    headers.TURNED: "have an EXIF orientation, which training, exports and the demo ignore alike: they see pixels as "
    "they are stored. Turn the pixels themselves if that matters",
    headers.CMYK: "are CMYK JPEGs without Adobe's mark, whose colours are read as inverted: convert them to RGB",
}


def inspect(recipe: Recipe, *, every_image: bool = False, say: Callable[[str], None] = print) -> dict[str, Any]:
    """All findings, ready for JSON. `errors` are sentences on what would stop training, `warnings` on the rest.

    every_image: whether to decode all images; otherwise only those whose header has a problem. say: see `load`.
    """
    data = recipe.data
    splits, errors, notes = load(data, say=say)
    errors = [*mistakes(recipe), *errors]
    parts = splits.parts
    names = {name: sources.image_names(part) for name, part in parts.items()}
    files = {name: part for name, part in parts.items() if part.kind != "pixels"}
    checks = check_images(files, data, every_image=every_image)
    copies = survey.copies({name: (parts[name], checks[name]) for name in checks}, title="comparing equal sizes")
    missing = missing_files(parts, checks, root=image_root(data))
    unreadable = {name: [x.problem for x in rows if x.problem and not x.missing] for name, rows in checks.items()}
    skip_missing = data.skip_bad_images and data.name not in LISTED
    labels = remaining_labels(parts, checks, skip_bad=data.skip_bad_images, skip_missing=skip_missing)
    class_names = np.array(splits.train.class_names, object)
    counts = {name: sources.class_counts(part, len(class_names)) for name, part in labels.items()}

    doubts = {name: [x.doubt for x in rows if x.doubt] for name, rows in checks.items()}
    warnings = notes + on_images(doubts, "may be damaged, but can be decoded")
    for remark, what in REMARKS.items():
        warnings += on_images(images_with(remark, checks, names), what)
    warnings += on_dark_images(files, checks)
    (warnings if skip_missing else errors).extend(on_missing(**missing, root=image_root(data)))
    (warnings if data.skip_bad_images else errors).extend(on_images(unreadable, "cannot be read"))
    present = np.isin(np.arange(len(class_names)), splits.train.labels)
    if (emptied := class_names[present & (counts["train"] == 0)]).size:
        errors.append(f"no readable training image is left of {some_of(emptied, 'class')}")
    errors += [f"no readable image is left of {name}" for name, part in labels.items() if not len(part)]
    for name, count in counts.items():
        if name != "train" and (without := class_names[count == 0]).size:
            warnings.append(f"{name} has no images of {some_of(without, 'class')}: no accuracy can be measured there")
    shared = shared_groups(parts)
    warnings += on_shared_groups(shared, parts)
    warnings += on_copies(copies, labels={name: part.labels for name, part in parts.items()}, names=names)
    described = {name: summary.describe(part, checks.get(name)) for name, part in parts.items()}
    return {
        "data": data.name,
        "splits": described,
        "classes": {"names": list(class_names), **{name: count.tolist() for name, count in counts.items()}},
        "taxonomy": splits.taxonomy and splits.taxonomy.number_of_names(),
        "shared_groups": shared,
        "imbalance": float(counts["train"].max() / counts["train"].min()) if counts["train"].min() else None,
        "groups": summary.group_sizes(counts["train"]),
        "weights": summary.class_weights(recipe, counts["train"]),
        "missing": missing,
        "unreadable": unreadable,
        "copies": [[[split, names[split][index]] for split, index in group] for group in copies],
        "warnings": warnings,
        "errors": errors,
        "next": summary.next_commands(recipe, described["train"]),
    }


def load(data: Data, *, say: Callable[[str], None] = print) -> tuple[Splits, list[str], list[str]]:
    """(splits, errors, notes): the splits include missing images.

    errors: a sentence per mistake in lists or folders. notes: sentences on what is left out or may be meant otherwise.
    say: prints these sentences if reading cannot go on. Then the error of `sources.load` is raised.
    """
    errors: list[str] = []
    notes: list[str] = []
    try:
        splits = sources.load(
            data.name, complain=lambda error: errors.append(str(error)), note=notes.append, **data.source()
        )
    except (ValueError, OSError):
        for kind, sentences in (("note", notes), ("error", errors)):
            for sentence in sentences:
                say(f"{kind}: {sentence}")
        raise
    return splits, errors, notes


def check_images(parts: dict[str, Source], data: Data, *, every_image: bool) -> dict[str, list[survey.FileCheck]]:
    """{split: a check per image}, from the header, and from the decoder where the header has a problem or everywhere.

    parts: {split: paths or encoded images}.
    """
    limit = data.max_pixels
    checks = {
        name: survey.check_files(part, max_pixels=limit, title=f"{name}: headers") for name, part in parts.items()
    }
    suspects = [
        (name, index)
        for name, rows in checks.items()
        for index, check in enumerate(rows)
        if not check.missing and (check.problem or every_image)
    ]
    if suspects:
        images = (parts[name].images[index] for name, index in suspects)
        names = {name: sources.image_names(part) for name, part in parts.items()}
        bad = dict(decode.bad_images(images, [names[name][index] for name, index in suspects], max_pixels=limit))
        for i, (name, index) in enumerate(suspects):
            check = checks[name][index]
            if i in bad:
                checks[name][index] = check._replace(problem=check.problem or bad[i])
            else:
                checks[name][index] = check._replace(problem="", doubt=check.problem)
    return checks


def remaining_labels(
    parts: dict[str, Source], checks: dict[str, list[survey.FileCheck]], *, skip_bad: bool, skip_missing: bool
) -> dict[str, np.ndarray]:
    """{split: labels of the images that training would use}.

    skip_bad, skip_missing: whether training leaves out unreadable and missing images.
    """
    labels = {name: part.labels for name, part in parts.items()}
    if skip_bad:
        for name, rows in checks.items():
            used = [not check.problem or (check.missing and not skip_missing) for check in rows]
            labels[name] = labels[name][used]
    return labels


def image_root(data: Data) -> str:
    """The folder that the paths of lists are relative to, in which archives are unpacked."""
    root = os.path.expanduser(data.data_dir) or os.curdir
    return storage.join(root, data.image_root) if data.name in LISTED else root


def missing_files(parts: dict[str, Source], checks: dict[str, list[survey.FileCheck]], *, root: str) -> dict[str, Any]:
    """{files: all missing files, relative to root; folders: {folder without any of its images: number of these}}."""
    paths = {name: part.images for name, part in parts.items() if part.kind == "paths"}
    relative = {name: [path.removeprefix(os.path.join(root, "")) for path in paths[name]] for name in paths}
    files = [path for name in paths for path, x in zip(relative[name], checks[name], strict=True) if x.missing]
    return {"files": files, "folders": survey.absent_folders(itertools.chain(*relative.values()), files)}


def on_missing(*, files: list[str], folders: dict[str, int], root: str) -> list[str]:
    """A sentence for each folder without any of its images, usually an archive, and one for all other missing files.

    files, folders: from `missing_files`.
    """
    sentences = []
    neighbours = [os.path.join(root, name) for name in storage.subfolders(root)] if folders else []
    for folder, count in list(folders.items())[:MAX_LISTED]:
        here = root if storage.is_url(root) else os.path.normpath(root)
        advice = f"unpack its archive in {here}, or name the folder where it lies with `image_root`"
        has_folder = storage.each(storage.is_dir, [os.path.join(other, folder) for other in neighbours])
        if elsewhere := list(itertools.compress(neighbours, has_folder)):
            advice = f"it lies in {elsewhere[0]}: name that with `image_root`"
        sentences.append(f"{folder}/ is missing with all {number_of(count, 'image')} listed in it: {advice}")
    if len(folders) > MAX_LISTED:
        sentences.append(f"{number_of(len(folders) - MAX_LISTED, 'more folder')} missing like that")
    if single := len(files) - sum(folders.values()):
        first = next(path for path in files if not any(parent in folders for parent in survey.parents(path)))
        where = "" if not folders else " elsewhere"
        sentences.append(f"{number_of(single, 'image')} missing{where}, the first is {os.path.join(root, first)}")
    return sentences


def shared_groups(parts: dict[str, Source]) -> dict[str, int]:
    """{split: number of its images whose group (observation, camera, ...) has training images, too}."""
    train = parts["train"].groups
    others = {name: part.groups for name, part in parts.items() if name != "train"}
    if train is None:
        return {}
    return {name: int(np.isin(groups, train).sum()) for name, groups in others.items() if groups is not None}


def on_shared_groups(shared: dict[str, int], parts: dict[str, Source]) -> list[str]:
    """A sentence for each split that shares groups with training. shared: from `shared_groups`."""
    return [
        f"{number_of(count, 'image')} of {len(parts[name])} in {name} share an observation (what `split_by` names) "
        "with training images: they are like them, so the accuracy is higher than on new ones"
        for name, count in shared.items()
        if count
    ]


def images_with(
    remark: str, checks: dict[str, list[survey.FileCheck]], names: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """{split: names of its images whose header has the remark}."""
    return {
        split: [
            name
            for name, x in zip(names[split], rows, strict=True)
            if x.header is not None and remark in x.header.remarks
        ]
        for split, rows in checks.items()
    }


def on_dark_images(parts: dict[str, Source], checks: dict[str, list[survey.FileCheck]]) -> list[str]:
    """A sentence for each split whose images of 16 bits use so few of them that they become nearly black.

    parts: {split: paths or encoded images}. A sample of DEEP_SAMPLE images of each split is decoded.
    """
    sentences = []
    for split, rows in checks.items():
        deep = [i for i, x in enumerate(rows) if x.header and not x.problem and headers.DEEP in x.header.remarks]
        sample = deep[:: -(-len(deep) // DEEP_SAMPLE) or 1]
        brightest = [level for i in sample if (level := brightest_level(parts[split].images[i])) is not None]
        if brightest and max(brightest) < DARK:
            sentences.append(
                f"{number_of(len(deep), 'PNG image')} of {split} have 16 bits a channel, of which the upper 8 are "
                f"used, and the brightest value in a sample of {len(brightest)} is {max(brightest)} of 65535: the "
                "views are nearly black. Scale the values to the whole range, or save 8 bits"
            )
    return sentences


def brightest_level(image: str | bytes) -> int | None:
    """The highest value of a PNG image of 16 bits; None if it cannot be decoded."""
    try:
        with survey.open_image(image) as stream:
            return int(tf.reduce_max(tf.cast(tf.io.decode_png(stream.read(), dtype=tf.uint16), tf.int32)))
    except (OSError, tf.errors.OpError):
        return None


def on_images(problems: dict[str, list[str]], what: str) -> list[str]:
    """A sentence for each split with problems: the number of images and the first problem.

    problems: {split: a sentence per image}. what: the predicate, such as "cannot be read".
    """
    return [
        f"{number_of(len(sentences), 'image')} of {name} {what}, the first is {sentences[0]}"
        for name, sentences in problems.items()
        if sentences
    ]


def on_copies(
    groups: list[list[tuple[str, int]]], *, labels: dict[str, np.ndarray], names: Mapping[str, Sequence[str]]
) -> list[str]:
    """A sentence for each pair of splits that share images, for copies within a split, and for differing labels.

    groups: from `survey.copies`. labels, names: of all images, by split.
    """
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
    for (earlier, split), examples in sorted(pairs.items(), key=lambda item: [list(names).index(s) for s in item[0]]):
        what = f"are copies of others in {split}" if earlier == split else f"are also in {earlier}"
        sentences.append(f"{number_of(len(examples), 'image')} of {split} {what}, e.g. {examples[0]}")
    if differing:
        example = min(differing, key=len)
        sentences.append(f"{number_of(len(differing), 'image')} with copies of another label, e.g. {example}")
    return sentences
