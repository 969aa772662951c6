"""--prior: adjust the logits of a trained network to another class distribution than the one that they assume.

Bayes: if softmax(z) estimates p(y | x) where classes have the shares a_y, then softmax(z - log a + log t) estimates it
where they have the shares t_y. The images of a class must look the same under both. Nothing is trained again.
Source: Menon et al., ICLR 2021 (arXiv 2007.07314), section 4.1; Saerens et al. 2002.
"""

import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from deitlt_tf import losses
from deitlt_tf.data import pipeline, storage


def adjustment(*, target: np.ndarray, assumed: np.ndarray) -> np.ndarray:
    """log t - log a, float32 [C], to be ADDED to the logits; centred, because a constant does not change a softmax.

    target, assumed: log t and log a, [C], each up to a constant; see `log_target` and `log_assumed`.

    >>> adjustment(target=np.log([0.5, 0.5]), assumed=np.log([0.8, 0.2])).astype(float).round(4).tolist()
    [-0.6931, 0.6931]
    """
    shift = target - assumed
    return (shift - shift.mean()).astype(np.float32)


def log_assumed(
    *,
    class_counts: np.ndarray,
    teacher_counts: np.ndarray | None = None,
    teacher_assumed: np.ndarray | None = None,
    sampling: str = "instance",
    logit_adjustment: float = 0.0,
    reweighted: float = 1.0,
    plain: bool = False,
    beta: float = 0.9999,
) -> dict[str, np.ndarray]:
    """log a for each head of a student, up to a constant: {"cls", "dist", "mean"}, float64 [C].

    cls: its labels had the shares n^s (s = 1, 1/2, 0 for `sampling` instance, sqrt, class_balanced). Training with
      `logit_adjustment` tau has already subtracted tau log n, so log a = (s - tau) log n. A `plain` ViT that was
      `reweighted` adds the log of its class weights w.
    dist: its labels were the teacher's, with the shares q of `teacher_labels`. From epoch K on the loss weighs each of
      them by w_y (`beta`), which acts as sampling by q w: log a = log q + log w. Without `teacher_counts`, q = n^s.
      Of weights that are older than epoch K or an average over it, `reweighted` log w is added instead of log w.
      In soft distillation its targets were whole distributions of the teacher, which weights of images do not move: log
      a is what the teacher's logits assume, `teacher_assumed`.
    mean: z = (z_cls + z_dist) / 2, so log a is the mean of both.

    class_counts: n, [C] training images of each class. teacher_counts: [C] of `teacher_labels`. teacher_assumed: [C] of
      `log_assumed_by_teacher`, for soft distillation.
    sampling, logit_adjustment, beta: as the student was trained. plain: whether it is a ViT without a DIST head.
    reweighted: share of re-weighted steps in its weights, 0..1; see `reweighted_share`.

    Subtracting log n from the mean would be wrong: training has already removed its part of log n from DIST. And q is
    not n: a balanced teacher predicts tail classes far more often than they occur.
    Approximations: this ignores what mixup and smoothing do to the labels of CLS, and that the phase after K may be too
    short to converge. An average of weights is treated as the average of the logits that its members have.

    >>> log_a = log_assumed(class_counts=np.array([80, 20]), reweighted=0)
    >>> np.exp(log_a["cls"]).round(4).tolist()
    [0.8, 0.2]
    """
    sampled = pipeline.SAMPLING[sampling] * log_shares(class_counts)
    cls = sampled - logit_adjustment * log_shares(class_counts)
    dist = sampled if teacher_counts is None else log_shares(teacher_counts)
    weights = reweighted * np.log(losses.class_balanced_weights(class_counts, beta))
    if plain:
        cls = cls + weights
    dist = dist + weights if teacher_assumed is None else teacher_assumed
    return {"cls": cls, "dist": dist, "mean": (cls + dist) / 2}


def log_assumed_by_teacher(
    *, class_counts: np.ndarray, loss: str, sampling: str = "instance", reweighted: bool = True, beta: float = 0.9999
) -> np.ndarray:
    """log a of a teacher's logits, up to a constant, float64 [C].

    Cross-entropy and LDAM learn the shares n^s, times the class weights w where they were re-weighted in the end.
    Balanced softmax and PaCo have taken out n themselves, whatever n^s and w were: log a = (s - 1) log n + log w. MDCS
    and GLMC sample and weigh the classes by rules of their own: log a = 0. What LDAM's margins do is left out.

    loss, sampling, beta: as the teacher was trained. reweighted: whether its loss was weighted by class in the end.
    """
    if loss in ("mdcs", "glmc"):
        return np.zeros(len(class_counts))
    removed = loss in ("balanced_softmax", "paco")
    sampled = (pipeline.SAMPLING[sampling] - removed) * log_shares(class_counts)
    return sampled + reweighted * np.log(losses.class_balanced_weights(class_counts, beta))


def reweighted_share(*, step: int, reweight_step: int, decay: float = 0.0, warmup: bool = False) -> float:
    """Share of re-weighted steps in the weights after `step` steps, 0..1.

    reweight_step: the number of steps without re-weighting. decay: d of a moving average of the weights, in which the
    steps after that have the share 1 - d^(step - reweight_step); 0: the weights of the step itself, so 0 or 1.
    warmup: whether d was at most (1 + t) / (10 + t) after t steps, as `distill.Distiller` has it.

    >>> reweighted_share(step=100, reweight_step=100), reweighted_share(step=101, reweight_step=100)
    (0.0, 1.0)
    >>> round(reweighted_share(step=200, reweight_step=100, decay=0.99), 3)
    0.634
    """
    if not warmup:
        return 1 - decay ** max(0, step - reweight_step)
    t = np.arange(reweight_step, step) + 1.0
    return float(1 - np.prod(np.minimum(decay, (1 + t) / (10 + t))))


def log_shares(counts: ArrayLike) -> np.ndarray:
    """log(n_c / sum of n), float64 [C]."""
    counts = np.asarray(counts, np.float64)
    return np.log(counts / counts.sum())


def teacher_labels(
    teacher: Callable[[np.ndarray], np.ndarray], batches: Iterable, *, class_counts: np.ndarray, sampling: str
) -> np.ndarray:
    """One plus the number of training images for which the teacher predicts each class, float64 [C].

    For a teacher that saw clean images. An image counts as often as `sampling` draws it. We add one, so that a class
    that the teacher never predicts is rare and not impossible.
    teacher: images -> logits [B, C]. batches: (images, labels, mask) of the training images in the evaluation view.
    class_counts: [C], training images of each class.
    """
    draws = np.asarray(class_counts, np.float64) ** (pipeline.SAMPLING[sampling] - 1)
    draws *= np.sum(class_counts) / np.sum(class_counts * draws)
    counts = np.ones(len(class_counts))
    for images, labels, mask in tqdm(batches, desc="labels of the teacher", leave=False):
        weights = np.asarray(mask) * draws[np.asarray(labels)]
        predicted = np.asarray(teacher(images)).argmax(-1)
        counts += np.bincount(predicted, weights=weights, minlength=len(counts))
    return counts


def mixed_teacher_labels(
    teacher: Callable[[np.ndarray], np.ndarray], batches: Iterable, *, num_classes: int
) -> np.ndarray:
    """The same for a teacher that saw mixed views. batches: (images, targets) of views, as `sampling` draws them."""
    counts = np.ones(num_classes)
    for images, _ in batches:
        counts += np.bincount(np.asarray(teacher(images)).argmax(-1), minlength=num_classes)
    return counts


def log_target(prior: str, *, class_names: tuple[str, ...], class_counts: np.ndarray) -> np.ndarray:
    """log t of --prior, float64 [C].

    prior: "uniform", "training" (shares of the training images), or a file of counts, see `read_counts`.
    class_names: [C]. class_counts: [C], training images of each class.

    >>> counts = np.array([80, 20])
    >>> np.exp(log_target("training", class_names=("cat", "dog"), class_counts=counts)).round(4).tolist()
    [0.8, 0.2]
    >>> np.exp(log_target("uniform", class_names=("cat", "dog"), class_counts=counts)).round(4).tolist()
    [0.5, 0.5]
    """
    if prior == "uniform":
        return np.full(len(class_names), -np.log(len(class_names)))
    return log_shares(class_counts if prior == "training" else read_counts(prior, class_names))


def read_counts(path: str, class_names: tuple[str, ...]) -> np.ndarray:
    """The counts (or any shares) in a file, float64 [C].

    A line is `count`, in the order of the classes, or `class count`. Blank lines are skipped, and so are lines with #
    in front, unless they are `class count` of a class of that name. Names are compared in Unicode's composed form,
    because macOS writes the letters of file names in parts.
    path: of a text file, see `storage.read_text`.
    Raises FileNotFoundError, or ValueError that names file, line and class.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--prior={path}: neither uniform nor training, and there is no such file.")
    classes = {_composed(name): index for index, name in enumerate(class_names)}
    classes |= {name: index for index, name in enumerate(class_names)}
    counts: dict[int, float] = {}
    unnamed = 0  # lines so far that are a count without a class
    for number, line in enumerate(storage.read_text(path).split("\n"), start=1):
        place, line = f"{path}:{number}", line.strip()
        text = line.split()[-1] if line else ""
        name, count = line.removesuffix(text).strip(), _number(text)
        index = classes.get(name, classes.get(_composed(name)))
        if not line or (line.startswith("#") and (index is None or count is None)):
            continue
        if count is None:
            advice = " (write a decimal point, not a comma)" if "," in text else ""
            raise ValueError(f"{place}: {line!r} is neither `count` nor `class count`{advice}.")
        if not name:
            if unnamed == len(class_names):
                raise ValueError(f"{place}: more counts than the {len(class_names)} classes of the model.")
            index, unnamed = unnamed, unnamed + 1
        if index is None:
            raise ValueError(f"{place}: {name!r} is not a class of the model.")
        if index in counts:
            raise ValueError(f"{place}: class {class_names[index]!r} has two counts.")
        if not 0 < count < np.inf:
            raise ValueError(f"{place}: the count of class {class_names[index]!r} must be above 0, not {text}.")
        counts[index] = count
    if missing := [name for index, name in enumerate(class_names) if index not in counts]:
        raise ValueError(f"{path} has no count for class {missing[0]!r} ({len(missing)} missing).")
    return np.array([counts[index] for index in range(len(class_names))])


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
