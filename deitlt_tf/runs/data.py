"""The splits that a run trains and measures on."""

from pathlib import Path
from typing import Any

import numpy as np

from deitlt_tf.data import decode, sources
from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.runs.files import write_text


def load_splits(
    name: str, *, folder: Path, max_pixels: int = 100_000_000, skip_bad_images: bool = False, **source: Any
) -> sources.Splits:
    """Training, validation and test images of a run; prints one line with their numbers.

    name, source: arguments of `data.sources.load`. folder: of the run. max_pixels: see `data.decode.decode`.
    skip_bad_images: whether to leave out images that cannot be decoded, and to list them in skipped_images.txt.
    Raises what `data.sources.load` and `without_bad_images` raise.
    """
    splits = sources.load(name, **source)
    if skip_bad_images:
        splits = without_bad_images(splits, max_pixels=max_pixels, report=folder / "skipped_images.txt")
    counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
    print(
        f"{name}: {len(splits.train)} training images "
        + f"in {len(counts)} classes ({counts.max()} to {counts.min()}), "
        + (f"{len(splits.val)} for validation, " if splits.val else "")
        + f"{len(splits.test)} for testing"
    )
    return splits


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
    return sources.Splits(**readable)
