"""--prior: logits moved, after training, from the class distribution they assume to the one they will be used under.

Bayes: if softmax(z) estimates p(y | x) where classes have the shares a_y, then softmax(z - log a + log t) does where
they have the shares t_y. The images of a class must look the same under both. Nothing is trained again.
Source: Menon et al., ICLR 2021 (arXiv 2007.07314), section 4.1; Saerens et al. 2002.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from deitlt_tf import losses
from deitlt_tf.data import pipeline


def adjustment(*, target: np.ndarray, assumed: np.ndarray) -> np.ndarray:
    """log t - log a, float32 [C], to be ADDED to the logits; centred, since softmax does not see a constant."""
    shift = target - assumed
    return (shift - shift.mean()).astype(np.float32)


def log_assumed(
    *,
    class_counts: np.ndarray,
    teacher_counts: np.ndarray | None = None,
    sampling: str = "instance",
    logit_adjustment: float = 0.0,
    reweighted: bool = True,
    plain: bool = False,
    beta: float = 0.9999,
) -> dict[str, np.ndarray]:
    """log a of each head of a student, up to a constant: {"cls", "dist", "mean"}, float64 [C].

    cls: labels came with shares n^s (s = 1, 1/2, 0 for `sampling` instance, sqrt, class_balanced), and
      `logit_adjustment` has taken tau log n out already: log a = (s - tau) log n. A `plain` ViT that was `reweighted`
      adds the log of its class weights w.
    dist: labels were the teacher's, with the shares q of `teacher_labels`, and from epoch K on each counted w_y times
      (`beta`), which acts as sampling by q w: log a = log q + log w. Without `teacher_counts`, q = n^s.
    mean: (z_cls + z_dist) / 2, hence the mean of both.

    So log n is not simply subtracted from the mean: DIST has taken its part out while it trained. And q is not n: a
    balanced teacher names tail classes far more often than they occur.
    Approximations: mixup, smoothing, a teacher that answers otherwise on augmented images, weights averaged over epochs
    before and after K, and a phase after K too short to converge.
    """
    shown = pipeline.SAMPLING[sampling] * log_shares(class_counts)
    cls = shown - logit_adjustment * log_shares(class_counts)
    dist = shown if teacher_counts is None else log_shares(teacher_counts)
    if reweighted:
        weights = np.log(losses.class_balanced_weights(class_counts, beta))
        if plain:
            cls = cls + weights
        else:
            dist = dist + weights
    return {"cls": cls, "dist": dist, "mean": (cls + dist) / 2}


def log_shares(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    return np.log(counts / counts.sum())


def teacher_labels(
    teacher: Callable[[np.ndarray], np.ndarray], batches: Iterable, *, class_counts: np.ndarray, sampling: str
) -> np.ndarray:
    """How often the teacher names each class on the training images as --sampling shows them, float64 [C], plus one.

    teacher: images -> logits [B, C]. batches: (images, labels, mask) of the training images in the evaluation view.
    Plus one, so that a class it never names is rare and not impossible.
    """
    often = np.asarray(class_counts, np.float64) ** (pipeline.SAMPLING[sampling] - 1)
    often *= np.sum(class_counts) / np.sum(class_counts * often)
    found = np.ones(len(class_counts))
    for images, labels, mask in tqdm(batches, desc="what the teacher names", leave=False):
        weights = np.asarray(mask) * often[np.asarray(labels)]
        named = np.asarray(teacher(images)).argmax(-1)
        found += np.bincount(named, weights=weights, minlength=len(found))
    return found


def log_target(prior: str, *, class_names: tuple[str, ...], class_counts: np.ndarray) -> np.ndarray:
    """log t of --prior, float64 [C]: `uniform`, `training` (shares of the training images), or a file of counts."""
    if prior == "uniform":
        return np.full(len(class_names), -np.log(len(class_names)))
    return log_shares(class_counts if prior == "training" else read_counts(prior, class_names))


def read_counts(path: str, class_names: tuple[str, ...]) -> np.ndarray:
    """Counts (or any shares) of a file, float64 [C]: one number a line in the order of the classes, or `class number`.

    Blank lines and lines that start with # are skipped. Raises ValueError naming file, line and class.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--prior={path}: neither uniform nor training, and there is no such file.")
    found: dict[str, float] = {}
    bare = 0
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        text = line.split()[-1]
        name = line.removesuffix(text).strip()
        if not name:
            if bare == len(class_names):
                raise ValueError(f"{path}:{number}: more counts than the {len(class_names)} classes of the model.")
            name, bare = class_names[bare], bare + 1
        try:
            count = float(text)
        except ValueError:
            raise ValueError(f"{path}:{number}: {line!r} is neither `count` nor `class count`.") from None
        if name not in class_names:
            raise ValueError(f"{path}:{number}: {name!r} is not a class of the model.")
        if name in found:
            raise ValueError(f"{path}:{number}: class {name!r} has two counts.")
        if not 0 < count < np.inf:
            raise ValueError(f"{path}:{number}: the count of class {name!r} must be above 0, not {text}.")
        found[name] = count
    if missing := [name for name in class_names if name not in found]:
        raise ValueError(f"{path} has no count for class {missing[0]!r} ({len(missing)} missing).")
    return np.array([found[name] for name in class_names])
