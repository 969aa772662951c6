"""How far the test images alone could move an accuracy: a bootstrap over images, stratified by class.

Drawing the n images of a class again with replacement and counting hits IS one draw of Binomial(n, q), q = hits / n,
and the images that only one of two models gets right ARE a draw of Multinomial. So no image is touched.

With few images a class, hits / n is too sure of itself: a class of one image is always or never right, and would have
no width at all. So q is shrunk toward the rate of the class's group, as if PRIOR images of that rate had been there:

    q_c = (hits_c + PRIOR r) / (n_c + PRIOR),   r = (sum of hits + SMOOTHING) / (sum of n + 2 SMOOTHING) over the group

The deviations of the draws from q are added to the accuracy itself. 95 % intervals of groups of 3 to 100 classes then
cover the true accuracy of 90 to 99 % of test sets with 1, 2, 3, 5, 10 or 50 images a class (a test). Two equally good
models are called different in 2 to 12 %. Both are nearest to the level where a group has hundreds of test images.

The mean height of mistakes (`severity`) is a quotient of two sums over the same images, and so is each of its draws.

Classes are fixed and every class keeps its n. An interval does not say how far another training seed would move the
number.
Source of SMOOTHING: Agresti and Coull 1998 ("add two successes and two failures").
"""

from collections.abc import Iterator, Mapping
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
BLOCK = 4096  # classes that are computed at a time


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
    values = scores(right, total, class_counts)
    return _of_percents(values, {1: right}, total, class_counts, smoothing=SMOOTHING, limits=(0, 100), draws=draws)


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
    values = scores(gained - lost, total, class_counts)
    return _of_percents(values, outcomes, total, class_counts, smoothing=smoothing, limits=(-100, 100), draws=draws)


def _of_percents(
    values: Scores,
    outcomes: Mapping[int, np.ndarray],
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    smoothing: float,
    limits: tuple[float, float],
    draws: Draws,
) -> Bounds:
    """`_bounds` of 100 x the sum of sign x hits / total. outcomes: {sign: hits [C]}."""
    statistic = Statistic(100.0 * np.array([*outcomes]), None)
    shrink = {"smoothing": smoothing, "added": 2 * smoothing}
    hits = np.stack([*outcomes.values()])
    return _bounds(values, hits, total, class_counts, statistic, limits=limits, draws=draws, **shrink)


def severity(
    by_height: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Bounds]:
    """{"mistakes", "images": {convention: {column: {value, low, high}}}}: mean heights of answers, see `hierarchy`.

    by_height: int [R, C], test images of each class that are answered wrongly, by the height 1..R of the answer.
    Mistakes: the mean over mistakes. In the mean of classes of a column every image weighs as it does in the accuracy
    of that column, so this is (mean height of all images) / (1 - accuracy). None where nothing is wrong.
    total, class_counts, resamples, seed, level: as of `accuracy`.
    """
    ranks, draws = len(by_height), Draws(resamples, seed, level)
    heights = np.arange(1, ranks + 1.0)
    means: dict[str, tuple[Statistic | Difference, tuple[float, float]]] = {
        "mistakes": (Statistic(heights, np.ones_like(heights)), (1, ranks)),
        "images": (Statistic(heights, None), (0, ranks)),
    }
    return _of_outcomes(means, by_height, total, class_counts, draws=draws)


def severity_difference(
    pairs: np.ndarray,
    heights: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    ranks: int,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Bounds]:
    """The same of severity(first model) - severity(second), on the same images in pairs; below 0, the first is nearer.

    pairs: int [K, C], test images of each class whose two answers have the k-th pair of heights, which are not both 0.
    heights: int [2, K], these heights. ranks: R. Mistakes: None where one of both models has none.
    total, class_counts, resamples, seed, level: as of `accuracy`.
    """
    draws = Draws(resamples, seed, level)
    first, second = heights.astype(np.float64)
    mistakes = Difference(*(Statistic(x, (x > 0).astype(np.float64)) for x in (first, second)))
    means: dict[str, tuple[Statistic | Difference, tuple[float, float]]] = {
        "mistakes": (mistakes, (1 - ranks, ranks - 1)),
        "images": (Statistic(first - second, None), (-ranks, ranks)),
    }
    return _of_outcomes(means, pairs, total, class_counts, draws=draws)


def _of_outcomes(
    statistics: "Mapping[str, tuple[Statistic | Difference, tuple[float, float]]]",
    outcomes: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    *,
    draws: Draws,
) -> dict[str, Bounds]:
    """{name: `_bounds`} of several statistics, {name: (statistic, limits)}, of the same outcomes [K, C]."""
    # As many images as SMOOTHING adds to right and wrong answers, divided evenly among right and all other outcomes.
    shrink = {"smoothing": 2 * SMOOTHING / (len(outcomes) + 1), "added": 2 * SMOOTHING}
    columns = _columns(total, class_counts)
    bounds: dict[str, Bounds] = {}
    for name, (statistic, limits) in statistics.items():
        values = {
            convention: {column: _observed(outcomes, total, *where, statistic) for column, where in by_column.items()}
            for convention, by_column in columns.items()
        }
        bounds[name] = _bounds(values, outcomes, total, class_counts, statistic, limits=limits, draws=draws, **shrink)
    return bounds


def mean_of_mistakes(
    values: np.ndarray, wrong: np.ndarray, total: np.ndarray, class_counts: np.ndarray
) -> dict[str, dict[str, float | None]]:
    """{convention: {column: mean of a value of each class over the mistakes in the column}}, weighted as `severity`.

    values: float [C]. wrong, total: int [C], wrong answers and test images. None where nothing is wrong.
    """
    outcomes, statistic = np.stack([values * wrong, wrong]), Statistic(np.array([1.0, 0]), np.array([0, 1.0]))
    return {
        convention: {name: _observed(outcomes, total, *where, statistic) for name, where in columns.items()}
        for convention, columns in _columns(total, class_counts).items()
    }


class Statistic(NamedTuple):
    """sum_k a_k s_k, or that divided by sum_k b_k s_k, where s_k is the weighted share of images with outcome k.

    above: a, [K]. below: b, [K]; None: 1 instead of the sum.
    """

    above: np.ndarray
    below: np.ndarray | None

    def __call__(self, shares: np.ndarray) -> np.ndarray:
        """[..., K] -> [...]; NaN where the sum below is 0."""
        above = shares @ self.above
        if self.below is None:
            return above
        below = shares @ self.below
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)

    def gradient(self, shares: np.ndarray) -> np.ndarray:
        """Its derivatives by the shares [K], at these shares."""
        if self.below is None:
            return self.above
        return (self.above - self(shares) * self.below) / (shares @ self.below)


class Difference(NamedTuple):
    """first - second."""

    first: Statistic
    second: Statistic

    def __call__(self, shares: np.ndarray) -> np.ndarray:
        """[..., K] -> [...]; NaN where one of both is."""
        return self.first(shares) - self.second(shares)

    def gradient(self, shares: np.ndarray) -> np.ndarray:
        """Its derivatives by the shares [K], at these shares."""
        return self.first.gradient(shares) - self.second.gradient(shares)


def _observed(
    outcomes: np.ndarray, total: np.ndarray, members: np.ndarray, weights: np.ndarray, statistic: Statistic | Difference
) -> float | None:
    """The statistic of a column, from what is observed [K, C]; None without test images, or where it is not defined."""
    shares = [(outcomes[:, block] / total[block]) @ part for block, part in _blocks(members, weights)]
    value = float(statistic(np.sum(shares, 0))) if shares else np.nan
    return None if np.isnan(value) else value


def _blocks(members: np.ndarray, weights: np.ndarray) -> Iterator[Column]:
    """The column in blocks of BLOCK classes, so that no array of all classes and outcomes is copied."""
    for start in range(0, len(members), BLOCK):
        yield members[start : start + BLOCK], weights[start : start + BLOCK]


def _bounds(
    values: Scores,
    outcomes: np.ndarray,
    total: np.ndarray,
    class_counts: np.ndarray,
    statistic: Statistic | Difference,
    *,
    smoothing: float,
    added: float,
    limits: tuple[float, float],
    draws: Draws,
) -> Bounds:
    """value, low, high of a statistic in every column.

    values: of the statistic in each column. outcomes: int [K, C], images of each class with each of K outcomes, which
    exclude each other. statistic: of their shares. limits: of low and high.
    smoothing, added: hits of each outcome, and images, that are added to a group, see the top of this file; 0: none.
    """

    def bound(value: float | None, members: np.ndarray, weights: np.ndarray) -> Bound | None:
        if value is None:
            return None
        hits = np.sum([outcomes[:, block].sum(-1) for block, _ in _blocks(members, weights)], 0)
        rates = (hits + smoothing) / (total[members].sum() + added)
        low, high = _reach(outcomes, total, rates, (members, weights), statistic, draws)
        low, high = value + min(low, 0), value + max(high, 0)
        return {"value": value, "low": float(np.clip(low, *limits)), "high": float(np.clip(high, *limits))}

    bounds: Bounds = {}
    for convention, columns in _columns(total, class_counts).items():
        known = {name: x for name, x in bounds.get("shots", {}).items() if name in ("overall", "balanced")}
        bounds[convention] = known | {
            name: bound(values[convention][name], *column) for name, column in columns.items() if name not in known
        }
    return bounds


def _shrunk(hits: np.ndarray, total: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """(hits + PRIOR r) / (total + PRIOR): [K, M]. hits: [K, M]. total: [M]. rates: r, [K], of all classes together."""
    return (hits + PRIOR * rates[:, None]) / (total + PRIOR)


def _reach(
    outcomes: np.ndarray,
    total: np.ndarray,
    rates: np.ndarray,
    column: Column,
    statistic: Statistic | Difference,
    draws: Draws,
) -> tuple[float, float]:
    """The middle `level` of statistic(sum_c weights_c draw_c / total_c) - statistic(its mean): (low, high), around 0.

    outcomes: [K, C]. total: [C]. rates: [K], how often each outcome is expected in the classes of the column.
    """
    share = (1 + draws.level) / 2
    members, weights = column
    if len(members) >= NORMAL:
        expected = np.sum(
            [_shrunk(outcomes[:, block], total[block], rates) @ part for block, part in _blocks(*column)], 0
        )
        gradient, variance = statistic.gradient(expected), 0.0
        for block, part in _blocks(*column):
            shrunk = _shrunk(outcomes[:, block], total[block], rates)
            # Of one image, because the outcomes exclude each other.
            of_image = gradient**2 @ shrunk - (gradient @ shrunk) ** 2
            variance += float(np.sum(part**2 * of_image / total[block]))
        reach = NormalDist().inv_cdf(share) * float(np.sqrt(variance))
        return -reach, reach
    tested = total[members]
    shrunk = _shrunk(outcomes[:, members], tested, rates)
    rng = np.random.default_rng(draws.seed)
    sums = np.empty((draws.resamples, len(shrunk)))
    left, remaining = np.broadcast_to(tested, (draws.resamples, len(tested))), np.ones(len(tested))
    for k, rate in enumerate(shrunk):
        # What a multinomial leaves after its first outcome is a binomial of the second.
        drawn = rng.binomial(left, np.clip(rate / np.maximum(remaining, 1e-12), 0, 1))
        sums[:, k] = (drawn / tested) @ weights
        left, remaining = left - drawn, remaining - rate
    low, high = np.nanquantile(statistic(sums) - statistic(shrunk @ weights), [1 - share, share])
    return float(low), float(high)
