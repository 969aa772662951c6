"""How far the test images alone could move an accuracy: a bootstrap over images, stratified by class.

Drawing the n images of a class again with replacement and counting hits IS one draw of Binomial(n, q), q = hits / n,
and the images that only one of two models gets right ARE a draw of Multinomial. So no image is touched.

With few images a class, hits / n is too sure of itself: a class of one image is always or never right, and would have
no width at all. So q is shrunk toward the rate of the class's group, as if PRIOR images of that rate had been there:

    q_c = (hits_c + PRIOR r) / (n_c + PRIOR),   r = (sum of hits + SMOOTHING) / (sum of n + 2 SMOOTHING) over the group

The deviations of the draws from q are added to the accuracy itself. 95 % intervals of groups of 3 to 100 classes then
cover the true accuracy of 90 to 99 % of test sets with 1, 2, 3, 5, 10 or 50 images a class (a test). Two equally good
models are called different in 2 to 12 %. Both are nearest to the level where a group has hundreds of test images.

Classes are fixed and every class keeps its n. An interval does not say how far another training seed would move the
number.
Source of SMOOTHING: Agresti and Coull 1998 ("add two successes and two failures").
"""

from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from deitlt_tf.evaluation import metrics

Scores = dict[str, dict[str, float | None]]
Bound = dict[str, float]  # value, low, high
Bounds = dict[str, dict[str, Bound | None]]
Column = tuple[np.ndarray, np.ndarray]  # classes that have test images, and the weight of each one's accuracy

PRIOR = 2.0  # images of the group's rate that are added to a class
SMOOTHING = 2.0  # hits, and as many misses, that are added to a group
NORMAL = 1000  # classes: a sum of this many independent draws is normal, so a formula replaces the draws


class Draws(NamedTuple):
    """resamples: number of draws. seed: of the draws. level: share of the draws that an interval holds."""

    resamples: int
    seed: int
    level: float


def scores(right: np.ndarray, total: np.ndarray, class_counts: np.ndarray) -> Scores:
    """{convention: {overall, balanced, head, mid, tail}} in percent: `metrics.accuracies` of one head.

    right: [C] hits (or differences of hits) of each class; total: [C] test images. None for a group without images.
    """

    rows = metrics.accuracies({"right": right, "total": total}, class_counts)
    return {convention: row["right"] for convention, row in rows.items()}


def _columns(total: np.ndarray, class_counts: np.ndarray) -> dict[str, dict[str, Column]]:
    """{convention: {overall, balanced, head, mid, tail: column}}."""
    tested = np.flatnonzero(total > 0)

    def mean_of(members: np.ndarray) -> Column:
        members = members[total[members] > 0]
        return members, np.full(len(members), 1 / max(len(members), 1))

    everything = {"overall": (tested, total[tested] / total.sum()), "balanced": mean_of(tested)}
    return {
        convention: everything
        | {group: mean_of(members) for group, members in metrics.groups(class_counts, convention).items()}
        for convention in ("shots", "paper")
    }


def accuracy(
    right: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Bounds:
    """{convention: {overall, balanced, head, mid, tail: {value, low, high}}} in percent; None without test images.

    right, total: int [C], hits and test images of each class. class_counts: [C], training images of each class.
    resamples, seed, level: see `Draws`.
    """
    draws = Draws(resamples, seed, level)
    return _bounds({1: right}, total, class_counts, smoothing=SMOOTHING, limits=(0, 100), draws=draws)


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
    """The same of accuracy(first model) - accuracy(second), in points, on the same images in pairs.

    gained: int [C], images that only the first model gets right; lost: only the second. Two models that are right on
    the same images have no distance and an interval without width.
    """
    draws = Draws(resamples, seed, level)
    smoothing = SMOOTHING if np.any(gained + lost) else 0.0
    outcomes = {1: gained, -1: lost}
    return _bounds(outcomes, total, class_counts, smoothing=smoothing, limits=(-100, 100), draws=draws)


def _bounds(
    outcomes: Mapping[int, np.ndarray],
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    smoothing: float,
    limits: tuple[float, float],
    draws: Draws,
) -> Bounds:
    """value, low, high of the sum of sign x hits / total in every column.

    outcomes: {sign: hits [C]} of outcomes that exclude each other. limits: of low and high.
    smoothing: hits that are added to a group, see the top of this file; 0: none.
    """
    values = scores(np.sum([sign * hits for sign, hits in outcomes.items()], 0), total, class_counts)

    def bound(value: float | None, members: np.ndarray, weights: np.ndarray) -> Bound | None:
        if value is None:
            return None
        tested = total[members]
        rates = {sign: _shrunk(hits[members], tested, smoothing=smoothing) for sign, hits in outcomes.items()}
        low, high = (value + 100 * x for x in _reach(rates, tested, weights, draws))
        return {"value": value, "low": float(np.clip(low, *limits)), "high": float(np.clip(high, *limits))}

    bounds: Bounds = {}
    for convention, columns in _columns(total, class_counts).items():
        known = {name: x for name, x in bounds.get("shots", {}).items() if name in ("overall", "balanced")}
        bounds[convention] = known | {
            name: bound(values[convention][name], *column) for name, column in columns.items() if name not in known
        }
    return bounds


def _shrunk(hits: np.ndarray, total: np.ndarray, *, smoothing: float) -> np.ndarray:
    """(hits + PRIOR r) / (total + PRIOR), r = the rate of all classes together: [K]."""
    rate = (hits.sum() + smoothing) / (total.sum() + 2 * smoothing)
    return (hits + PRIOR * rate) / (total + PRIOR)


def _reach(
    rates: Mapping[int, np.ndarray], total: np.ndarray, weights: np.ndarray, draws: Draws
) -> tuple[float, float]:
    """The middle `level` of sum_c weights_c (draw_c / total_c - its mean): (low, high), around 0.

    rates: {sign: [K]}, how often each outcome is expected. total, weights: [K].
    """
    share = (1 + draws.level) / 2
    if len(total) >= NORMAL:
        mean = np.sum([sign * rate for sign, rate in rates.items()], 0)
        variance = np.sum(list(rates.values()), 0) - mean**2  # of one image, because the outcomes exclude each other
        reach = NormalDist().inv_cdf(share) * float(np.sqrt(np.sum(weights**2 * variance / total)))
        return -reach, reach
    rng = np.random.default_rng(draws.seed)
    sums = np.zeros(draws.resamples)
    left, remaining = np.broadcast_to(total, (draws.resamples, len(total))), np.ones(len(total))
    for sign, rate in rates.items():
        # What a multinomial leaves after its first outcome is a binomial of the second.
        drawn = rng.binomial(left, np.clip(rate / np.maximum(remaining, 1e-12), 0, 1))
        sums += sign * ((drawn / total - rate) @ weights)
        left, remaining = left - drawn, remaining - rate
    low, high = np.quantile(sums, [1 - share, share])
    return float(low), float(high)
