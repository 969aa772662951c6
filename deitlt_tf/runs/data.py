"""The splits that a run trains and measures on."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from deitlt_tf.data import decode, sources
from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.recipes.recipe import max_pixels_of
from deitlt_tf.runs.files import write_text


def load_splits(flags: SimpleNamespace, *, folder: Path) -> sources.Splits:
    """Train, validation and test data; --skip_bad_images leaves out what cannot be decoded and lists it in `folder`."""
    found = sources.load(
        flags.data,
        data_dir=flags.data_dir,
        train_list=flags.train_list,
        val_list=flags.val_list,
        test_list=flags.test_list,
        image_root=flags.image_root,
        class_names_file=flags.class_names_file,
        test_fraction=flags.test_fraction,
        val_fraction=flags.val_fraction,
        imbalance=flags.imbalance,
        imbalance_type=flags.imbalance_type,
        imbalance_seed=flags.imbalance_seed,
        split_seed=flags.split_seed,
        download=flags.download,
    )
    if flags.skip_bad_images:
        found = without_bad_images(found, max_pixels=max_pixels_of(flags), report=folder / "skipped_images.txt")
    counts = sources.class_counts(found.train.labels, len(found.train.class_names))
    print(
        f"{flags.data}: {len(found.train)} training images "
        + f"in {len(counts)} classes ({counts.max()} to {counts.min()}), "
        + (f"{len(found.val)} for validation, " if found.val else "")
        + f"{len(found.test)} for testing"
    )
    return found


def without_bad_images(found: sources.Splits, *, max_pixels: int, report: Path) -> sources.Splits:
    lines, kept = [], {}
    for name in ("train", "val", "test"):
        source = getattr(found, name)
        bad = decode.bad_images_of(source, max_pixels=max_pixels) if source else []
        lines += [f"{name}\t{sources.names(source)[index]}\t{reason}" for index, reason in bad]
        kept[name] = sources.take(source, np.setdiff1d(np.arange(len(source)), [i for i, _ in bad])) if bad else source
    if is_chief():
        write_text(report, "".join(line + "\n" for line in lines))
    counts = sources.class_counts(kept["train"].labels, len(found.train.class_names))
    if counts.min() == 0:
        raise ValueError(
            f"class {found.train.class_names[counts.argmin()]!r} has no readable training image left: see {report}."
        )
    print(f"skipped {len(lines)} images that cannot be decoded" + (f", listed in {report}" if lines else ""))
    return sources.Splits(**kept)
