"""The images of each client: one data set divided by chance, or a folder of each client, with one list of classes."""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deitlt_tf.data import sources
from deitlt_tf.data.dataset import Source, Splits, plain_name, split_off, take
from deitlt_tf.data.sources import folders
from deitlt_tf.federated import partition
from deitlt_tf.interop.imports import read_names
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.data import without_bad_images


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a client; val and test are None where it has none."""

    name: str
    train: Source
    val: Source | None
    test: Source | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of all clients, in label order."""
        return self.train.class_names

    @property
    def splits(self) -> Splits:
        """All images; the training images stand for test images that the client does not have."""
        return Splits(self.train, self.val, self.test or self.train)

    @property
    def counts(self) -> np.ndarray:
        """Training images of each class, int [C]."""
        return sources.class_counts(self.train.labels, len(self.class_names))


def divided(splits: Splits, recipe: Recipe) -> list[Images]:
    """The clients client00, client01, ... among which the images of one data set are divided by chance.

    A client's validation images are drawn as its test images are. Raises ValueError if a client gets no image.
    """
    settings, classes = recipe.federated.clients, len(splits.train.class_names)
    parts = partition.dirichlet(
        splits.train.labels,
        splits.test.labels,
        num_classes=classes,
        clients=settings.count,
        alpha=settings.alpha,
        seed=settings.partition_seed,
    )
    vals: Sequence[np.ndarray] = [np.zeros(0, np.int64)] * settings.count
    if splits.val:
        counts = np.array([sources.class_counts(splits.train.labels[part], classes) for part in parts.train])
        vals = partition.local_tests(splits.val.labels, counts, np.random.RandomState(settings.partition_seed))
    return [
        Images(f"client{k:02d}", take(splits.train, train), part_of(splits.val, val), part_of(splits.test, test))
        for k, (train, val, test) in enumerate(zip(parts.train, vals, parts.test, strict=True))
    ]


def part_of(source: Source | None, indices: np.ndarray) -> Source | None:
    """The images at `indices`; None where there are none."""
    return take(source, indices) if source is not None and len(indices) else None


def of_folder(path: str, recipe: Recipe, *, report: Path, name: str = "") -> Images:
    """The images of a client's own folder, which need not have every class.

    report: file that lists images that cannot be decoded, with --skip_bad_images. name: defaults to the folder's.
    Raises what `folders.read` raises, and ValueError for a class that `class_names_file` does not have, for another
    kind of data and for a long tail that is to be imposed.
    """
    data = recipe.data
    if data.name != "folder" or data.imbalance != 1:
        raise ValueError(
            f"data={data.name} with imbalance={data.imbalance:g} does not fit a client's own folder, whose images "
            "are all used: set --data=folder and --imbalance=1."
        )
    splits = folders.read(data_dir=path, test_fraction=data.test_fraction, split_seed=data.split_seed)
    if data.val_fraction and splits.val is None:
        train, val = split_off(splits.train, data.val_fraction, seed=data.split_seed, argument="val_fraction")
        splits = Splits(train, val, splits.test)
    if data.skip_bad_images:
        splits = without_bad_images(splits, max_pixels=data.max_pixels, report=report)
    name = name or os.path.basename(os.path.abspath(path))
    if not name:
        raise ValueError(f"{path} has no name that a client could have: take a folder below it.")
    images = Images(name, splits.train, splits.val, splits.test)
    return of_classes(images, class_list(recipe)) if data.class_names_file else images


def class_list(recipe: Recipe) -> tuple[str, ...]:
    """The classes that all clients have agreed on, from `class_names_file`."""
    return tuple(plain_name(name) for name in read_names(recipe.data.class_names_file) or ())


def of_classes(images: Images, class_names: tuple[str, ...]) -> Images:
    """The same images with labels in this list of classes. Raises ValueError for a class that it does not have."""
    unknown = [name for name in images.class_names if name not in class_names]
    if unknown:
        raise ValueError(
            f"client {images.name} has the class {unknown[0]!r}, which is not in the list that the clients have agreed "
            "on (`class_names_file`): rename that folder, or extend the list for all clients."
        )
    label_of = np.array([class_names.index(name) for name in images.class_names], np.int32)

    def relabelled(source: Source | None) -> Source | None:
        return source and dataclasses.replace(source, labels=label_of[source.labels], class_names=class_names)

    train = relabelled(images.train)
    assert train is not None
    return Images(images.name, train, relabelled(images.val), relabelled(images.test))


def of_folders(recipe: Recipe, *, workdir: Path) -> list[Images]:
    """The clients of `federated_client_dirs`, in the order of their names; their classes are those of all together.

    Raises ValueError for two folders of one name.
    """
    clients = [
        of_folder(path, recipe, report=workdir / f"skipped_images_{i}.txt")
        for i, path in enumerate(recipe.federated.clients.dirs)
    ]
    clients.sort(key=lambda client: client.name)
    names = [client.name for client in clients]
    for first, second in itertools.pairwise(names):
        if first == second:
            raise ValueError(
                f"`federated_client_dirs` has two folders of the name {first!r}: a client has its folder's name, so "
                "rename one of them."
            )
    classes = tuple(sorted({name for client in clients for name in client.class_names}))
    if recipe.data.class_names_file:
        classes = class_list(recipe)
    return [of_classes(client, classes) for client in clients]
