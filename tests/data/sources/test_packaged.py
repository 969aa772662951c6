"""Images from a package: CIFAR-LT picks the official ones, any TFDS set is read or refused with a sentence."""

from pathlib import Path

import numpy as np
import pytest

from deitlt_tf.data import sources
from deitlt_tf.data.dataset import long_tail_counts, subsample


def store(
    root: Path, name: str, splits: dict[str, list[dict]], *, label_names: list[str], version: str, **more
) -> None:
    """Write a prepared TFDS set to `root`, shuffled as TFDS does."""
    import tensorflow_datasets as tfds

    features = tfds.features
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version=version,
        features=features.FeaturesDict(
            {"image": features.Image(shape=(None, None, 3)), "label": features.ClassLabel(names=label_names)} | more
        ),
        split_datasets={split: [(str(i), e) for i, e in enumerate(examples)] for split, examples in splits.items()},
        data_dir=str(root),
    )


def flat(value: int, label: int, **more) -> dict:
    return {"image": np.full([32, 32, 3], value, np.uint8), "label": label} | more


def test_cifar_comes_in_the_official_order_and_the_official_subset(tmp_path):
    import tensorflow_datasets as tfds

    store(
        tmp_path,
        "cifar10",
        {s: [flat(i, i * 7 % 10, id=f"{s}_{i:05d}") for i in range(n)] for s, n in (("train", 100), ("test", 20))},
        label_names=[f"n{i}" for i in range(10)],
        version=str(tfds.builder_cls("cifar10").VERSION),
        id=tfds.features.Text(),
    )
    splits = sources.load("cifar10_lt", data_dir=str(tmp_path), download=False)
    assert splits.train.kind == "pixels" and splits.train.images.shape == (100, 32, 32, 3)
    assert splits.train.images[:, 0, 0, 0].tolist() == list(range(100))
    assert splits.test.images[:, 0, 0, 0].tolist() == list(range(20))
    assert splits.train.labels.tolist() == [i * 7 % 10 for i in range(100)]
    tailed = sources.load("cifar10_lt", data_dir=str(tmp_path), download=False, imbalance=10).train
    counts = long_tail_counts(np.full(10, 10), imbalance=10, imbalance_type="exp")
    expected = subsample(splits.train.labels, counts, seed=0)
    assert tailed.images[:, 0, 0, 0].tolist() == expected.tolist()


def test_any_tfds_set_stays_encoded(tmp_path):
    import tensorflow as tf

    examples = [flat(i, i % 2) for i in range(20)]
    store(
        tmp_path,
        "three",
        {"train": examples[:14], "validation": examples[14:17], "test": examples[17:]},
        label_names=["even", "odd"],
        version="1.0.0",
    )
    splits = sources.load("tfds:three", data_dir=str(tmp_path), download=False)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [14, 3, 3]
    assert splits.train.kind == "encoded" and splits.train.class_names == ("even", "odd")
    values = [int(tf.io.decode_image(data)[0, 0, 0]) for data in splits.train.images]
    assert sorted(values) == list(range(14)) and [value % 2 for value in values] == splits.train.labels.tolist()


def test_tfds_without_labelled_test_set_uses_validation_or_splits(tmp_path):
    examples = [flat(i, i % 2) for i in range(20)]
    hidden = [example | {"label": -1} for example in examples[:2]]
    names = ["even", "odd"]
    both = {"train": examples[:16], "validation": examples[16:], "test": hidden}
    store(tmp_path, "hidden", both, label_names=names, version="1.0.0")
    splits = sources.load("tfds:hidden", data_dir=str(tmp_path), download=False)
    assert len(splits.test) == 4 and splits.val is None
    store(tmp_path, "single", {"train": examples}, label_names=names, version="1.0.0")
    splits = sources.load("tfds:single", data_dir=str(tmp_path), download=False, test_fraction=0.3)
    assert (len(splits.train), len(splits.test)) == (14, 6)
    store(tmp_path, "untrained", {"test": examples}, label_names=names, version="1.0.0")
    with pytest.raises(ValueError, match="tfds:untrained has no labelled split `train`, only test"):
        sources.load("tfds:untrained", data_dir=str(tmp_path), download=False)


def test_tfds_sets_of_another_kind_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name="captions",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
        split_datasets={"train": [("0", {"text": "a cat"})]},
        data_dir=str(tmp_path),
    )
    with pytest.raises(ValueError, match="tfds:captions is no classification set"):
        sources.load("tfds:captions", data_dir=str(tmp_path), download=False)


def test_tfds_without_data_or_network_says_so_in_one_sentence(tmp_path, monkeypatch):
    import requests

    def no_network(*args, **kwargs):
        raise requests.ConnectionError("no route\nto host")

    with pytest.raises(FileNotFoundError, match=f"cifar10 is not in {tmp_path}, .* downloading is off"):
        sources.load("cifar10_lt", data_dir=str(tmp_path), download=False)
    monkeypatch.setattr(requests, "head", no_network)
    with pytest.raises(
        OSError, match=f"cifar100 is not in {tmp_path} and .* cannot fetch it.*ConnectionError: no route to host"
    ):
        sources.load("cifar100_lt", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="TensorFlow Datasets knows no data set nonesuch"):
        sources.load("tfds:nonesuch", data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())  # nothing half-written
