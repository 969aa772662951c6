"""How far the test images alone could move an accuracy: bootstrap over images, stratified by class.

Drawing the n images of a class again with replacement and counting hits IS one draw of Binomial(n, hits / n), and the
images that only one of two models gets right ARE a draw of Multinomial. So the bootstrap is exact without touching
an image: resamples x C numbers, for any size of test set.

Classes are fixed and every class keeps its n. What it does not tell: how far another training seed would move the
number. Two limits: where a class is never (or always) right its interval has no width, and with n images of a class
the variance comes out (n - 1) / n of the unbiased one.
"""

import numpy as np

from deitlt_tf.evaluation import metrics

Scores = dict[str, dict[str, np.ndarray | None]]
Bounds = dict[str, dict[str, dict[str, float] | None]]


def scores(right: np.ndarray, total: np.ndarray, class_counts: np.ndarray) -> Scores:
    """{convention: {overall, head, mid, tail}} in percent, as `metrics.accuracies`, of many hit counts at once.

    right: [..., C] hits (or differences of hits) of each class; total: [C] test images. overall = sum of hits / images,
    a group = mean over its classes that have images. Shapes [...]; None for a group without images.
    """
    seen = total > 0
    share = np.divide(right, total, out=np.zeros(np.shape(right)), where=seen)

    def of_group(members):
        members = members[seen[members]]
        return 100 * share[..., members].mean(-1) if len(members) else None

    overall = 100 * np.sum(right, axis=-1) / total.sum()
    return {
        convention: {"overall": overall}
        | {group: of_group(members) for group, members in metrics.groups(class_counts, convention).items()}
        for convention in ("shots", "paper")
    }


def resample_hits(right: np.ndarray, total: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """[resamples, C] hits after drawing every class's images again with replacement."""
    rng = np.random.default_rng(seed)
    return rng.binomial(total, right / np.maximum(total, 1), (resamples, len(total)))


def resample_gains(gained: np.ndarray, lost: np.ndarray, total: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """[resamples, C] of gained - lost, images drawn again in pairs: Multinomial(total; gained, lost, neither).

    gained: [C] images that only the first model gets right; lost: only the second.
    """
    rng = np.random.default_rng(seed)
    size = (resamples, len(total))
    again = rng.binomial(total, gained / np.maximum(total, 1), size)
    # The rest of a multinomial is a binomial among the images that the first draw left.
    return again - rng.binomial(total - again, lost / np.maximum(total - gained, 1), size)


def _bounds(value: Scores, drawn: Scores, *, level: float) -> Bounds:
    """value, low, high of each number: the middle `level` of the resamples (percentile bootstrap)."""

    def of(number, samples):
        if number is None:
            return None
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
        return {"value": float(number), "low": float(low), "high": float(high)}

    return {c: {group: of(x, drawn[c][group]) for group, x in row.items()} for c, row in value.items()}


def accuracy(
    right: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Bounds:
    """{convention: {overall, head, mid, tail: {value, low, high}}} in percent. right, total: [C]."""
    drawn = resample_hits(right, total, resamples=resamples, seed=seed)
    return _bounds(scores(right, total, class_counts), scores(drawn, total, class_counts), level=level)


def difference(
    gained: np.ndarray,
    lost: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Bounds:
    """The same of accuracy(first model) - accuracy(second), in points, on the same images. All arrays: [C]."""
    drawn = resample_gains(gained, lost, total, resamples=resamples, seed=seed)
    return _bounds(scores(gained - lost, total, class_counts), scores(drawn, total, class_counts), level=level)
