"""A data set in memory: images, labels, class names; class counts, long tails and held-out images.

Every random choice has a seed. Every class gives its share of the held-out images.
"""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from deitlt_tf.data.paths import Paths
from deitlt_tf.data.table import keys
from deitlt_tf.data.taxonomy import Taxonomy, is_name

# A function that gets each mistake in the data. It raises the error, or returns so that reading goes on.
Complain = Callable[[Exception], None]
# A function that gets a sentence on what is read otherwise than a user may expect, such as files that are left out.
Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Source:
    """Images, their labels and the names of the classes.

    images: uint8 [N, H, W, 3] pixels, or a 1-D array of N file paths (str) or of N encoded images (bytes), or `Paths`.
    labels: int32 [N], 0..C-1.
    class_names: C names, in label order.
    names: object [N] of str: a name of each image that stays the same when images are added or the folder moves, such
        as its path from the folder of the data; None: its path, or its index where it has none.
    groups: int64 [N], a key for each observation, camera, ...: images of one key belong into one split; None: not
        known.
    Raises ValueError for arrays of other types or lengths.
    """

    images: np.ndarray | Paths
    labels: np.ndarray
    class_names: tuple[str, ...]
    names: np.ndarray | None = None
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.kind:
            kind = getattr(self.images, "dtype", type(self.images).__name__)
            raise ValueError(f"images must be uint8 [N, H, W, 3], paths or bytes; got {kind} {self.images.shape}")
        if self.names is not None and self.names.shape != self.labels.shape:
            raise ValueError(f"names must be [{len(self.images)}]; got {self.names.shape}")
        if self.groups is not None and (self.groups.dtype != np.int64 or self.groups.shape != self.labels.shape):
            raise ValueError(f"groups must be int64 [{len(self.images)}]; got {self.groups.dtype} {self.groups.shape}")
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int32 [{len(self.images)}]; got {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> str:
        """What `images` holds: "pixels", "paths" or "encoded"; "" where it is none of them."""
        if isinstance(self.images, Paths):
            return "paths" if len(self.images) else ""
        if self.images.ndim == 4 and self.images.shape[-1] == 3 and self.images.dtype == np.uint8:
            return "pixels"
        if self.images.ndim != 1 or not len(self.images):
            return ""
        return "paths" if isinstance(self.images[0], str) else "encoded" if isinstance(self.images[0], bytes) else ""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: three sources with the same class names.

    val: None where there is no validation split. taxonomy: of these classes, in this order; None where it is not known.
    Raises ValueError if the class names differ.
    """

    train: Source
    val: Source | None
    test: Source
    taxonomy: Taxonomy | None = None

    def __post_init__(self) -> None:
        if any(part is not None and part.class_names != self.train.class_names for part in (self.val, self.test)):
            raise ValueError("train, val and test must have the same class names in the same order")
        if self.taxonomy is not None:
            self.taxonomy.require_classes(self.train.class_names, place="the taxonomy")

    @property
    def parts(self) -> dict[str, Source]:
        """{"train", "val", "test": source} of the splits that there are."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: source for name, source in parts.items() if source is not None}


def raise_mistake(error: Exception) -> None:
    """The default `Complain`: the first mistake in the data is raised."""
    raise error


def print_note(sentence: str) -> None:
    """The default `Note`."""
    print(f"note: {sentence}")


def and_more(mistakes: Sized) -> str:
    """What follows a sentence on the first of five mistakes: " (and 4 more)"; "" where it is the only one."""
    return f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """n_c = number of images of class c, int64 [num_classes], in one pass over the labels.

    Raises ValueError for a label of num_classes or more.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"label {len(counts) - 1} is outside 0..{num_classes - 1}")
    return counts


def image_names(source: Source) -> Sequence[str]:
    """A printable name of each image: its path, or "image 17" where it does not have a path."""
    if isinstance(source.images, Paths):
        return source.images
    return list(source.images) if source.kind == "paths" else [f"image {i}" for i in range(len(source))]


def stable_names(source: Source) -> list[str]:
    """`source.names`, or what stands for them: the key of its group, so that a group keeps together; path or index."""
    if source.names is not None:
        return list(source.names)
    if source.groups is not None:
        return [f"group {key}" for key in source.groups.tolist()]
    return list(source.images) if source.kind == "paths" else [str(index) for index in range(len(source))]


def names_below(root: str, paths: Sequence[str]) -> np.ndarray:
    """`Source.names` of files below the folder or URL `root`: the same on every system."""
    start = os.path.join(root, "")
    names = [unicodedata.normalize("NFC", path.removeprefix(start)).replace(os.sep, "/") for path in paths]
    return np.array(names, object)


def plain_name(name: str) -> str:
    """The name as it is compared: without blanks at its ends, and in one Unicode form (macOS writes e + accent)."""
    return unicodedata.normalize("NFC", name).strip()


def require_class_names(names: Sequence[str], places: Sequence[str] = ()) -> None:
    """Every class needs a name of its own, which is one line of text.

    places: where each name stands, for the error message; default: "class 17".
    Raises ValueError that names both places of a name that two classes have, or the place of an unfit name.
    """
    places = places or [f"class {label}" for label in range(len(names))]
    place_of: dict[str, str] = {}
    for name, place in zip(map(plain_name, names), places, strict=True):
        if not is_name(name):
            raise ValueError(f"{place} has the name {name!r}: the name of a class is one line of text.")
        if name in place_of:
            both = f"{place_of[name]} and {place} have the same name, {name!r}"
            raise ValueError(f"{both}: give each class a name of its own, or make them one class.")
        place_of[name] = place


def take(source: Source, indices: np.ndarray) -> Source:
    """The images at `indices`, in that order."""
    names = None if source.names is None else source.names[indices]
    groups = None if source.groups is None else source.groups[indices]
    return Source(source.images[indices], source.labels[indices], source.class_names, names, groups)


def long_tail_counts(counts: np.ndarray, *, imbalance: float, imbalance_type: str) -> np.ndarray:
    """exp: n_i = int(n_max (1/rho)^(i/(C-1))); step: n_max in the first half of the classes, then int(n_max/rho).

    counts: int [C], images per class in the data set's class order; n_max is their maximum. imbalance: rho.
    imbalance_type: exp or step. Returns int64 [C]: the images that each class keeps, at most as many as it has, and at
    least one (the official profile can round to zero).
    Raises ValueError for a rho below 1 or another type.
    Source: val-iisc/DeiT-LT datasets.py (get_img_num_per_cls); the same floating-point operations, because int() cuts
    off and a different rounding would give another count.
    """
    if not imbalance >= 1:
        raise ValueError(f"imbalance={imbalance:g} must be at least 1: it is the largest class divided by the smallest")
    classes, n_max, ratio = len(counts), int(max(counts)), 1 / imbalance
    profiles = {
        "exp": lambda i: n_max * ratio ** (i / max(classes - 1, 1)),
        "step": lambda i: n_max if i < classes // 2 else n_max * ratio,
    }
    if imbalance_type not in profiles:
        raise ValueError(f"imbalance_type={imbalance_type} is unknown: choose {' or '.join(profiles)}")
    return np.minimum(counts, [max(1, int(profiles[imbalance_type](i))) for i in range(classes)])


def subsample(labels: np.ndarray, counts: Sequence[int] | np.ndarray, *, seed: int) -> np.ndarray:
    """Indices of counts[c] images of each class c, classes in order, each shuffled: the official choice of images.

    One legacy NumPy generator shuffles all classes in turn, so the choice in a class depends on the classes before it.
    Source: val-iisc/DeiT-LT datasets.py (gen_imbalanced_data).
    """
    rng = np.random.RandomState(seed)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(class_counts(labels, len(counts)))[:-1])
    for members in by_class:
        rng.shuffle(members)
    return np.concatenate([members[:count] for members, count in zip(by_class, counts, strict=True)])


def split_off(
    source: Source, fraction: float, *, seed: int, argument: str, by_group: bool = True
) -> tuple[Source, Source]:
    """(rest, part): an image is in `part` if hash(argument, seed, name) < fraction, so about that share of each class.

    by_group: whether a source with groups is split by them, see `parts_of_groups`; it is one of `Paths` otherwise.
    The name of an image is that of `stable_names`. Other images do not matter, so no image changes sides when images
    are added or the folder moves. There are two exceptions: the lowest hash of a class of two or more images is always
    in `part`, and the highest hash of every class is always in `rest`.

    argument: name of the caller's argument that holds the fraction, for the error message. It is part of the hash
    because otherwise a second split of `rest`, whose hashes are high, would hold out nothing.
    Raises ValueError for a fraction outside (0, 1), or if no class has two images.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"{argument}={fraction:g} must lie between 0 and 1")
    if source.groups is not None and (by_group or isinstance(source.images, Paths)):
        units = source.groups if by_group else source.images.stable_keys  # type: ignore[union-attr]
        part = parts_of_groups(units, source.labels, fraction, seed=seed, argument=argument)
        return take(source, ~part), take(source, part)
    hashes = np.array([_hash(f"{argument} {seed} {name}") for name in stable_names(source)])
    order = np.lexsort([hashes, source.labels])
    _, first, counts = np.unique(source.labels[order], return_index=True, return_counts=True)
    in_part = hashes < fraction
    in_part[order[first]] = True
    in_part[order[first + counts - 1]] = False  # after the line above, because of classes of one image
    if not in_part.any():
        raise ValueError(
            f"{argument}={fraction:g} cannot split {len(source)} images: each class has one, which stays for training. "
            "Name held-out images of your own, or add images."
        )
    return take(source, ~in_part), take(source, in_part)


def parts_of_groups(groups: np.ndarray, labels: np.ndarray, fraction: float, *, seed: int, argument: str) -> np.ndarray:
    """bool [N], the images that are held out: those of groups with hash(argument, seed, group) < fraction.

    groups: int64 [N], keys that stay the same when images are added. labels: int [N].
    As in `split_off`, the lowest hash of a class of two or more groups is held out, and the highest hash of every class
    is not. A group of several classes goes one way as a whole.
    Raises ValueError for a fraction outside (0, 1), or if nothing can be held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"{argument}={fraction:g} must lie between 0 and 1")
    distinct, group = np.unique(groups, return_inverse=True)
    hashes = keys.shares(distinct, seed=keys.seed_of(f"{argument} {seed}"))
    order = np.lexsort([hashes[group], labels])
    _, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    in_part = hashes < fraction
    in_part[group[order[first]]] = True
    in_part[group[order[first + counts - 1]]] = False
    if not in_part.any():
        raise ValueError(
            f"{argument}={fraction:g} cannot split {len(labels)} images of {len(distinct)} groups: every class needs "
            "one for training. Split by something finer (`split_by`), or name the test images (`test_where`)."
        )
    return in_part[group]


def _hash(text: str) -> float:
    """A number from 0 to 1 that looks random, and is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=6).digest()) / 2**48
