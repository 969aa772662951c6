"""The splits that a run trains and measures on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deitlt_tf.data import decode, sources, storage
from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.runs.files import write_text
from deitlt_tf.runs.fingerprint import Fingerprints, differences, fingerprints, read_fingerprints
from deitlt_tf.runs.folder import is_of_version_0_1
from deitlt_tf.runs.models import taxonomies_of_run, taxonomy_of_run


def load_splits(
    name: str, *, folder: Path, max_pixels: int = 100_000_000, skip_bad_images: bool = False, **source: Any
) -> sources.Splits:
    """Training, validation and test images of a run; prints one line with their numbers, and one with the taxonomy's.

    A run keeps its taxonomy inside its models. It is used where the data bring none, and where its file is gone.

    name, source: arguments of `data.sources.load`. folder: of the run. max_pixels: see `data.decode.decode`.
    skip_bad_images: whether to leave out images that cannot be decoded, and to list them in skipped_images.txt.
    Raises what `data.sources.load` and `without_bad_images` raise.
    """
    file = source.get("taxonomy_file")
    if file and not storage.is_file(os.path.expanduser(file)) and any(taxonomies_of_run(folder)):
        print(f"note: there is no {file} (`taxonomy_file`) any more; the taxonomy is that of the models in {folder}.")
        source |= {"taxonomy_file": None}
    splits = sources.load(name, **source)
    if splits.taxonomy is None:
        splits = replace(splits, taxonomy=taxonomy_of_run(folder, splits.train.class_names))
    if skip_bad_images:
        splits = without_bad_images(splits, max_pixels=max_pixels, report=folder / "skipped_images.txt")
    counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
    print(
        f"{name}: {len(splits.train)} training images "
        + f"in {len(counts)} classes ({counts.max()} to {counts.min()}), "
        + (f"{len(splits.val)} for validation, " if splits.val else "")
        + f"{len(splits.test)} for testing"
    )
    if splits.taxonomy is not None:
        print("taxonomy: " + ", ".join(f"{n} {rank}" for rank, n in splits.taxonomy.number_of_names().items()))
    return splits


def identity(
    splits: sources.Splits,
    *,
    name: str,
    val_fraction: float = 0.0,
    data_dir: str = "",
    test_where: str = "",
    **_: Any,
) -> dict[str, Any]:
    """Keywords of `runs.folder.claim`: class names and fingerprints of the splits, and the flags that held images out.

    name, val_fraction, data_dir, test_where: arguments of `load_splits`, which has loaded the splits; it may get the
    others, too.
    """
    return {
        "class_names": splits.train.class_names,
        "data": fingerprints(splits),
        "drawn": drawn_flags(name, splits, val_fraction=val_fraction, data_dir=data_dir, test_where=test_where),
    }


def note_other_data(folder: Path, *, data: Fingerprints, drawn: list[str], **_: Any) -> None:
    """Prints a line if these are not the data of the run in `folder`. data, drawn: of `identity`."""
    try:
        before = read_fingerprints(folder)
    except ValueError as error:
        print(f"note: {error}")
        return
    if before is not None and (sentences := differences(before, data)):
        print(f"note: these are not the data of {folder}: {'; '.join(sentences)}.")
    if before is None and drawn and is_of_version_0_1(folder) and (folder / "metrics.jsonl").is_file():
        print(
            f"note: {folder} is a run of version 0.1.0, which held out other images for {' and '.join(drawn)}: among "
            "these test images are some that it was trained on."
        )


def drawn_flags(
    name: str, splits: sources.Splits, *, val_fraction: float, data_dir: str, test_where: str = ""
) -> list[str]:
    """The flags that have held images out of these splits: val_fraction, and test_fraction where there is no test set.

    name, val_fraction, data_dir, test_where: arguments of `data.sources.load`, which has loaded the splits.
    """
    flags = ["`val_fraction`"] if val_fraction else []
    if name == "folder":  # the images of a split of its own lie in a folder that has no others
        roots = [
            path.removesuffix(storage.below_common_folder(list(part.images))[0]) + "/"
            for part in (splits.train, splits.test)
            for path in part.images[:1]
        ]
        own_test = not (roots[0].startswith(roots[1]) or roots[1].startswith(roots[0]))
    elif name == "table":
        own_test = bool(test_where)
    elif name.startswith("tfds:"):
        import tensorflow_datasets as tfds

        builder = tfds.builder(name.removeprefix("tfds:"), data_dir=os.path.expanduser(data_dir) or None)
        own_test = bool({"validation", "test"} & {*builder.info.splits})
    else:
        own_test = True
    return flags if own_test else [*flags, "`test_fraction`"]


def without_bad_images(splits: sources.Splits, *, max_pixels: int, report: Path) -> sources.Splits:
    """The splits without the images that cannot be decoded; the file `report` lists those, with the reason.

    Raises ValueError if a class has no training image left.
    """
    lines, readable = [], {}
    for name in ("train", "val", "test"):
        source = getattr(splits, name)
        bad = decode.bad_images_of(source, max_pixels=max_pixels) if source else []
        lines += [f"{name}\t{sources.image_names(source)[index]}\t{reason}" for index, reason in bad]
        good = np.setdiff1d(np.arange(len(source)), [index for index, _ in bad]) if bad else None
        readable[name] = source if good is None else sources.take(source, good)
    if is_chief():
        write_text(report, "".join(line + "\n" for line in lines))
    class_names = splits.train.class_names
    counts = sources.class_counts(readable["train"].labels, len(class_names))
    if counts.min() == 0:
        raise ValueError(f"class {class_names[counts.argmin()]!r} has no readable training image left: see {report}.")
    print(f"skipped {len(lines)} images that cannot be decoded" + (f", listed in {report}" if lines else ""))
    return sources.Splits(**readable, taxonomy=splits.taxonomy)
