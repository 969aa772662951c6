"""Answers that use the taxonomy: the least-risk class, and the finest node that is sure enough.

The probability of a node is the sum of those of its classes, P_r(v). Two rules follow, without another training:

    least risk   argmax over classes c of  sum over ranks r of P_r(node of c at r)
    roll-up      at the finest rank r whose best node has P_r >= threshold, that node; at no rank: nothing

The first one has the smallest expected height, because the expected height of an answer c is R minus that sum (see
`hierarchy`). The second one answers "some sparrow" where no species is sure. Sums go from rank to rank along the
parents, so no matrix of classes x classes is needed.
Source: least risk as in Karthik et al., ICLR 2021 (arXiv 2104.00795), section 3; roll-up as in Deng et al., CVPR 2012
("Hedging your bets"), with a threshold instead of a reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import metrics

THRESHOLDS = tuple(round(0.01 * k, 2) for k in range(1, 100))  # among which one is chosen
SHOWN = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # in tables
NOTHING = "nothing"  # instead of a rank


class ByRank(NamedTuple):
    """The answers of one head to N images at every rank.

    node: int32 [N, R], the most probable node of each rank. confidence: float32 [N, R], its probability.
    least_risk: int64 [N], the least-risk class.
    """

    node: np.ndarray
    confidence: np.ndarray
    least_risk: np.ndarray


def node_probabilities(probabilities: tf.Tensor, taxonomy: Taxonomy) -> list[tf.Tensor]:
    """For each rank the probabilities of its nodes, [B, nodes]. probabilities: of the classes, [B, C]."""
    by_rank = [probabilities]
    for rank in range(1, len(taxonomy.ranks)):
        columns = tf.transpose(by_rank[-1])
        sums = tf.math.unsorted_segment_sum(columns, taxonomy.parents(rank - 1), len(taxonomy.nodes[rank]))
        by_rank.append(tf.transpose(sums))
    return by_rank


def by_rank(probabilities: tf.Tensor, taxonomy: Taxonomy) -> ByRank:
    """The answers at every rank, as tensors. probabilities: float32 [B, C]."""
    nodes = node_probabilities(probabilities, taxonomy)
    score = nodes[-1]
    for rank in range(len(nodes) - 2, -1, -1):
        score = nodes[rank] + tf.gather(score, taxonomy.parents(rank), axis=1)
    return ByRank(
        tf.stack([tf.argmax(p, -1, output_type=tf.int32) for p in nodes], 1),
        tf.stack([tf.reduce_max(p, -1) for p in nodes], 1),
        tf.argmax(score, -1),
    )


def outputs(probabilities: tf.Tensor, taxonomy: Taxonomy, threshold: float) -> dict[str, tf.Tensor]:
    """What an exported network answers with the taxonomy, [B] each. probabilities: float32 [B, C].

    least_risk: int64, a class. sure_rank: int64, 0..R - 1, and R for nothing. sure_node: int64, a node of that rank,
    and -1 for nothing. sure_probability: float32, of that node; for nothing, of the best node of the coarsest rank.
    """
    answers, ranks = by_rank(probabilities, taxonomy), len(taxonomy.ranks)
    reached = answers.confidence >= threshold
    known = tf.reduce_any(reached, 1)
    rank = tf.where(known, tf.argmax(tf.cast(reached, tf.int32), 1), ranks)
    last = tf.minimum(rank, ranks - 1)
    node = tf.cast(tf.gather(answers.node, last, batch_dims=1), tf.int64)
    return {
        "least_risk": answers.least_risk,
        "sure_rank": rank,
        "sure_node": tf.where(known, node, -1),
        "sure_probability": tf.gather(answers.confidence, last, batch_dims=1),
    }


def sure(confidence: ArrayLike, threshold: float) -> np.ndarray:
    """int [N]: the finest rank whose confidence reaches the threshold, R where there is none. confidence: [N, R].

    >>> sure([[0.4, 0.9], [0.8, 0.9], [0.1, 0.2]], 0.7).tolist()
    [1, 0, 2]
    """
    reached = np.asarray(confidence) >= threshold
    return np.where(reached.any(1), reached.argmax(1), reached.shape[1])


# ---- coverage and accuracy -------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Judged:
    """Answers with their truth.

    confidence: [N, R] of `ByRank`. right: bool [N, R], whether the node of each rank is that of the label.
    labels: int [N]. num_classes: C.
    """

    confidence: np.ndarray
    right: np.ndarray
    labels: np.ndarray
    num_classes: int

    def balanced(self) -> np.ndarray:
        """float64 [N]: a weight of each image with which every class counts alike."""
        return 1 / np.bincount(self.labels, minlength=self.num_classes)[self.labels]

    def at(self, threshold: float, weights: np.ndarray) -> tuple[np.ndarray, float | None]:
        """(share of images that is answered at each rank, [R + 1] with nothing at the end; accuracy of the answers).

        weights: [N], of the images. The accuracy, 0..1, is None where nothing is answered.
        """
        rank, ranks = sure(self.confidence, threshold), self.confidence.shape[1]
        shares = np.bincount(rank, weights=weights, minlength=ranks + 1) / weights.sum()
        answered = np.flatnonzero(rank < ranks)
        weight = weights[answered]
        right = self.right[answered, rank[answered]]
        return shares, float(weight @ right / weight.sum()) if weight.sum() else None


def judged(answers: ByRank, labels: np.ndarray, taxonomy: Taxonomy) -> Judged:
    """The answers with their truth. labels: int [N]."""
    right = answers.node == taxonomy.ancestors.T[labels]
    return Judged(answers.confidence, right, labels, len(taxonomy.class_names))


def curve(answers: Judged, ranks: Sequence[str], thresholds: Sequence[float] = SHOWN) -> list[dict[str, Any]]:
    """Coverage against accuracy, every image alike.

    For each threshold {"threshold", "coverage": {rank or "nothing": share of the images}, "accuracy": of the answers}.
    """
    weights = np.ones(len(answers.labels))
    rows = []
    for threshold in thresholds:
        shares, accuracy = answers.at(threshold, weights)
        coverage = dict(zip([*ranks, NOTHING], shares.tolist(), strict=True))
        rows.append({"threshold": float(threshold), "coverage": coverage, "accuracy": accuracy})
    return rows


def by_column(
    answers: Judged, ranks: Sequence[str], class_counts: ArrayLike, threshold: float
) -> dict[str, dict[str, Any] | None]:
    """The row of `curve` at one threshold for each of `metrics.COLUMNS`; None for a column without images.

    Groups are those of the convention "paper". In all columns but overall every class counts alike.
    """
    balanced = answers.balanced()
    weights: dict[str, np.ndarray] = {"overall": np.ones(len(balanced)), "balanced": balanced}
    for group, members in metrics.groups(class_counts, "paper").items():
        weights[group] = balanced * np.isin(answers.labels, members)
    columns: dict[str, dict[str, Any] | None] = {}
    for column, weight in weights.items():
        if not weight.any():
            columns[column] = None
            continue
        shares, accuracy = answers.at(threshold, weight)
        coverage = dict(zip([*ranks, NOTHING], shares.tolist(), strict=True))
        columns[column] = {"coverage": coverage, "accuracy": accuracy}
    return columns


def choose(answers: Judged, *, target: float) -> float | None:
    """The lowest of THRESHOLDS at which this share of the answers is right; None if there is none.

    Every class counts alike, because held-out images of long-tailed data are mostly of the head.
    answers: on the validation split. target: 0..1.
    """
    weights = answers.balanced()
    for threshold in THRESHOLDS:
        _, accuracy = answers.at(threshold, weights)
        if accuracy is not None and accuracy >= target:
            return threshold
    return None


def measured(
    answers: Judged, ranks: Sequence[str], class_counts: ArrayLike, *, validation: Judged | None, target: float
) -> dict[str, Any]:
    """What tables and reports say about the roll-up of one head.

    {"curve": `curve`, "target", "threshold": `choose` on the validation split, "columns": `by_column` at it}; threshold
    and columns are None without a validation split, or where no threshold reaches the target.
    answers: on the test split. class_counts: [C], training images of each class.
    """
    threshold = choose(validation, target=target) if validation else None
    return {
        "curve": curve(answers, ranks),
        "target": target,
        "validation": validation is not None,
        "threshold": threshold,
        "columns": threshold and by_column(answers, ranks, class_counts, threshold),
    }


def disagreeing(
    probabilities: np.ndarray, outputs: Mapping[str, np.ndarray], taxonomy: Taxonomy, threshold: float, *, tie: float
) -> int:
    """How many answers of an exported file are not those that its own probabilities give, ties left out.

    probabilities: [B, C]. outputs: `least_risk`, `sure_rank`, `sure_node`, `sure_probability` of the file.
    tie: difference of two probabilities, or of a probability and the threshold, up to which both answers are right.
    """
    nodes = [np.asarray(x) for x in node_probabilities(tf.constant(probabilities, tf.float32), taxonomy)]
    score = np.sum([p[:, row] for p, row in zip(nodes, taxonomy.ancestors, strict=True)], 0)
    images = np.arange(len(score))
    wrong = score[images, outputs["least_risk"]] < score.max(1) - tie
    for image in images:
        rank, node = int(outputs["sure_rank"][image]), int(outputs["sure_node"][image])
        best = [p[image].max() for p in nodes]
        finer = best[:rank]
        too_coarse = any(p > threshold + tie for p in finer)
        if rank == len(nodes):
            wrong[image] |= too_coarse or node != -1
        else:
            p = nodes[rank][image, node] if 0 <= node < len(taxonomy.nodes[rank]) else -1.0
            wrong[image] |= too_coarse or p < max(threshold, best[rank]) - tie
    return int(wrong.sum())
