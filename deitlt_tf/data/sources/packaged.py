"""Images that a package provides: TensorFlow Datasets, CIFAR among them, and scikit-learn's digits."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from deitlt_tf.data.dataset import Source, Splits, split_off, subsample, take

DIGITS_TEST_PER_CLASS = 60


def cifar(name: str, *, data_dir: str | None = None, download: bool = True) -> Splits:
    """`cifar10` or `cifar100` as pixels, in the official order, which the `id` feature of TFDS states.

    data_dir: folder of TensorFlow Datasets. Raises ValueError or OSError as `tfds_set` does.
    """
    import tensorflow_datasets as tfds

    builder = _prepared(name, data_dir=data_dir, download=download)
    class_names = tuple(builder.info.features["label"].names)

    def read(split: str) -> Source:
        data = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        order = np.argsort(data["id"].astype("S"))  # "train_00000", "train_00001", ...
        return Source(data["image"][order], data["label"][order].astype(np.int32), class_names)

    return Splits(read("train"), None, read("test"))


def tfds_set(
    name: str, *, data_dir: str | None = None, download: bool = True, test_fraction: float = 0.2, split_seed: int = 0
) -> Splits:
    """Any TFDS set with the features image and label; images stay encoded, all in memory (ImageNet-LT: about 20 GB).

    Splits train, validation, test; one whose labels are hidden (-1) counts as missing. Without test, validation is the
    test set. Without both, a stratified test set is split off train.
    name: as TFDS knows it. data_dir: folder of TensorFlow Datasets; default: ~/tensorflow_datasets.
    test_fraction, split_seed: share of each class that is split off, and its seed.
    Raises ValueError for an unknown set or one of another kind, FileNotFoundError if it is absent and download is off,
    OSError if the download fails.
    """
    import tensorflow_datasets as tfds

    builder = _prepared(name, data_dir=data_dir, download=download)
    info = builder.info
    features = dict(info.features.items()) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    if not (
        isinstance(features.get("label"), tfds.features.ClassLabel)
        and isinstance(features.get("image"), tfds.features.Image)
        and features["image"].np_dtype == np.uint8
    ):
        raise ValueError(
            f"tfds:{name} is no classification set: it needs the features image (uint8) and label (ClassLabel)"
        )
    class_names = tuple(features["label"].names)
    # `shards` writes the names of the files, as many sets of TFDS do.
    named = isinstance(features.get("file_name"), tfds.features.Text)
    decoders = tfds.decode.PartialDecoding(
        {"image": True, "label": True} | ({"file_name": True} if named else {}),
        decoders={"image": tfds.decode.SkipDecoding()},
    )

    def dataset(split: str) -> Iterable[dict[str, Any]]:
        return tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))

    def read(split: str) -> Source:
        rows = [(row["image"], row["label"], row.get("file_name", b"").decode()) for row in dataset(split)]
        images, labels, file_names = zip(*rows, strict=True)
        names = np.array(file_names, object) if named else None
        return Source(np.array(images, object), np.array(labels, np.int32), class_names, names)

    labelled = [
        split
        for split in ("train", "validation", "test")
        if split in info.splits and next(iter(dataset(split)))["label"] >= 0
    ]
    if "train" not in labelled:
        raise ValueError(f"tfds:{name} has no labelled split `train`, only {', '.join(info.splits)}")
    if labelled == ["train"]:
        train, test = split_off(read("train"), test_fraction, seed=split_seed, argument="test_fraction")
        return Splits(train, None, test)
    train, *val, test = [read(split) for split in labelled]
    return Splits(train, val[0] if val else None, test)


def _prepared(name: str, *, data_dir: str | None, download: bool) -> Any:
    """The TFDS builder of `name` with its files on disk, downloaded if need be; raises as `tfds_set` says."""
    import requests  # TFDS downloads with it
    import tensorflow_datasets as tfds

    where = data_dir or os.path.expanduser("~/tensorflow_datasets")
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(f"TensorFlow Datasets knows no data set {name}, nor is there one in {where}") from error
    if builder.is_prepared():
        return builder
    if not download:
        raise FileNotFoundError(f"{name} is not in {where}, where TensorFlow Datasets keeps it, and downloading is off")
    try:
        for url in list(builder.url_infos)[:1]:
            requests.head(url, timeout=30)  # without a network this fails at once; TFDS would retry for minutes
        builder.download_and_prepare()
    except Exception as error:  # any type, because TFDS passes on what downloaders and scripts of data sets raise
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"{name} is not in {where} and TensorFlow Datasets cannot fetch it: `data_dir` should name the folder "
            f"of TensorFlow Datasets that has it ({type(error).__name__}: {reason})"
        ) from error
    return builder


def digits(*, split_seed: int = 0) -> Splits:
    """1797 handwritten digits, 8x8 grey, bundled with scikit-learn, as RGB 0..255; test set: 60 per class, seeded."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)
    class_names = tuple(str(name) for name in data.target_names)
    whole = Source(np.repeat(pixels[..., None], 3, axis=-1), data.target.astype(np.int32), class_names)
    test = np.sort(subsample(whole.labels, [DIGITS_TEST_PER_CLASS] * len(class_names), seed=split_seed))
    return Splits(take(whole, np.setdiff1d(np.arange(len(whole)), test)), None, take(whole, test))
