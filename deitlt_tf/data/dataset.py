"""What a data set is: its images, their labels, the names of the classes; and choosing among the images.

Counting classes, imposing a long tail, splitting off a part: every choice is seeded, and stratified where it splits.
"""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass

import numpy as np

Complain = Callable[[Exception], None]


@dataclass(frozen=True, eq=False)
class Source:
    """Images, their labels and the names of the classes.

    images: uint8 [N, H, W, 3] pixels, or a 1-D array of N file paths (str) or of N encoded images (bytes).
    labels: int32 [N], 0..C-1.
    class_names: C names, in label order.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.kind:
            raise ValueError(
                f"images must be uint8 [N, H, W, 3], paths or bytes; got {self.images.dtype} {self.images.shape}"
            )
        if self.labels.dtype != np.int32 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"labels must be int32 [{len(self.images)}]; got {self.labels.dtype} {self.labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> str:
        """What `images` holds: "pixels", "paths" or "encoded"; "" where it is none of them."""
        if self.images.ndim == 4 and self.images.shape[-1] == 3 and self.images.dtype == np.uint8:
            return "pixels"
        if self.images.ndim != 1 or not len(self.images):
            return ""
        return "paths" if isinstance(self.images[0], str) else "encoded" if isinstance(self.images[0], bytes) else ""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: three sources with the same class names; `val` is None where there is no validation split."""

    train: Source
    val: Source | None
    test: Source

    def __post_init__(self) -> None:
        if any(part is not None and part.class_names != self.train.class_names for part in (self.val, self.test)):
            raise ValueError("train, val and test must have the same class names in the same order")


def stop(error: Exception) -> None:
    """The usual way to complain of a mistake in the data: raise it."""
    raise error


def and_more(mistakes: Sized) -> str:
    """What follows a sentence on the first of several like mistakes."""
    return f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """n_c = number of images of class c, int64 [num_classes], in one pass over the labels."""
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"label {len(counts) - 1} is outside 0..{num_classes - 1}")
    return counts


def names(source: Source) -> list[str]:
    """A printable name of each image: its path, or "image 17" where it has none."""
    return list(source.images) if source.kind == "paths" else [f"image {i}" for i in range(len(source))]


def take(source: Source, indices: np.ndarray) -> Source:
    """The images at `indices`, in that order."""
    return Source(source.images[indices], source.labels[indices], source.class_names)


def long_tail_counts(counts: np.ndarray, *, imbalance: float, imbalance_type: str) -> np.ndarray:
    """exp: n_i = int(n_max (1/rho)^(i/(C-1))); step: n_max in the first half of the classes, then int(n_max/rho).

    counts: images per class, in the data set's class order; n_max is their maximum. A class never keeps more than it
    has, nor less than one image (the official profile can round to zero). Returns int64 [C].
    Source: val-iisc/DeiT-LT datasets.py (get_img_num_per_cls); float for float, because int() cuts off.
    """
    if not imbalance >= 1:
        raise ValueError(
            f"--imbalance={imbalance:g} must be at least 1: it is the largest class divided by the smallest"
        )
    classes, n_max, ratio = len(counts), int(max(counts)), 1 / imbalance
    profiles = {
        "exp": lambda i: n_max * ratio ** (i / max(classes - 1, 1)),
        "step": lambda i: n_max if i < classes // 2 else n_max * ratio,
    }
    if imbalance_type not in profiles:
        raise ValueError(f"--imbalance_type={imbalance_type} is unknown: choose {' or '.join(profiles)}")
    return np.minimum(counts, [max(1, int(profiles[imbalance_type](i))) for i in range(classes)])


def subsample(labels: np.ndarray, counts: Sequence[int], *, seed: int) -> np.ndarray:
    """Indices of counts[c] images of each class c, classes in order, each shuffled: the official choice of images.

    One legacy NumPy generator runs through all classes, so the choice of a class depends on the classes before it.
    Source: val-iisc/DeiT-LT datasets.py (gen_imbalanced_data).
    """
    rng = np.random.RandomState(seed)
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(class_counts(labels, len(counts)))[:-1])
    for members in by_class:
        rng.shuffle(members)
    return np.concatenate([members[:count] for members, count in zip(by_class, counts, strict=True)])


def split_off(source: Source, fraction: float, *, seed: int, flag: str) -> tuple[Source, Source]:
    """(rest, part): `part` is a stratified, seeded `fraction` of the images; a class of one image stays in `rest`.

    flag: the flag that set the fraction, for the error when it leaves less than an image per class on either side.
    """
    from sklearn.model_selection import train_test_split  # takes a second to import, and most sources come split

    single = class_counts(source.labels, len(source.class_names))[source.labels] == 1
    several = np.flatnonzero(~single)
    if not 0 < fraction < 1:
        raise ValueError(f"{flag}={fraction:g} must lie between 0 and 1")
    try:
        _, part = train_test_split(several, test_size=fraction, stratify=source.labels[several], random_state=seed)
    except ValueError as error:
        raise ValueError(f"{flag}={fraction:g} cannot split {len(several)} images by class: {error}") from error
    in_part = np.isin(np.arange(len(source)), part)
    return take(source, ~in_part), take(source, in_part)
