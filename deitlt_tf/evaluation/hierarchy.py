"""How near an answer is to the truth in a taxonomy: accuracy by rank, and the severity of mistakes.

An answer is right at a rank if it has the node of the label there. The height of an answer is the number of ranks at
which it is wrong, so it is the height of the lowest common ancestor of answer and label: 0 is right, 1 is the right
genus of species, and R, the number of ranks, shares nothing. Since nodes form a tree, an answer that is right at a rank
is right at all coarser ones. So the hits of each rank hold all there is to know:

    sum of heights of class c = R n_c - sum over ranks of hits_rc

and no matrix of classes x classes is needed. Hits are integers, summed over batches and replicas, divided once.
Source of the severity: Bertinetto et al., CVPR 2020 (arXiv 1912.09393), "hierarchical distance of a mistake".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import intervals

BOOTSTRAP: dict[str, Any] = {"resamples": 1000, "seed": 0, "level": 0.95}

# Of one head: {"accuracy": {rank: bounds}, "mistakes": bounds, "images": bounds, "uniform": scores}, see `summary`.
Summary = dict[str, Any]


def hits(labels: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """int64 [R, C]: how many images of each class are answered with the right node of each rank.

    labels, predicted: int [N], classes.

    >>> from deitlt_tf.data.taxonomy import from_lineages
    >>> pets = from_lineages([("cat", "animal"), ("car", "vehicle"), ("dog", "animal")], ("class", "kind"))
    >>> hits(np.array([0, 0, 1, 2]), np.array([0, 2, 2, 2]), pets).tolist()
    [[1, 0, 1], [2, 0, 1]]
    """
    num_classes = len(taxonomy.class_names)
    rows = [np.bincount(labels[row[predicted] == row[labels]], minlength=num_classes) for row in taxonomy.ancestors]
    return np.stack(rows)


def class_hits(labels: np.ndarray, predicted: np.ndarray, num_classes: int, taxonomy: Taxonomy | None) -> np.ndarray:
    """`hits`, int64 [R, C]; without a taxonomy those of the classes alone, [C]. Arguments: as of `hits`."""
    if taxonomy is not None:
        return hits(labels, predicted, taxonomy)
    return np.bincount(labels[predicted == labels], minlength=num_classes)


def by_height(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """int [R, C]: images of each class whose answer has the height 1..R. right: `hits`. total: [C], test images."""
    return np.diff(np.vstack([right, total]), axis=0)


def uniform_heights(taxonomy: Taxonomy) -> np.ndarray:
    """float64 [C]: mean height of a wrong answer to an image of each class, if all wrong classes were equally likely.

    It follows from how many classes each node has. NaN for a single class.
    """
    others = len(taxonomy.class_names) - 1
    alike = sum(taxonomy.sizes(rank)[row] - 1 for rank, row in enumerate(taxonomy.ancestors))
    return (len(taxonomy.ranks) * others - alike) / others if others else np.full(1, np.nan)


def summary(
    right: np.ndarray, total: np.ndarray, class_counts: np.ndarray, taxonomy: Taxonomy, **bootstrap: Any
) -> Summary:
    """Accuracy by rank and severity of mistakes of one head, with intervals.

    {"accuracy": {rank: {convention: {column: {value, low, high}}}}: percent, with the columns of `metrics.COLUMNS`.
    "mistakes", "images": {convention: {column: {value, low, high}}}: mean height over mistakes, and over all images.
    "uniform": {convention: {column: height}}: of the same mistakes, if each were a uniformly drawn wrong class.}
    None in a column without test images, and for mistakes and uniform where nothing is wrong.
    right: `hits`. total: [C], test images. class_counts: [C], training images of each class.
    bootstrap: keywords of `intervals.accuracy`; default: BOOTSTRAP.
    """
    draws = bootstrap or BOOTSTRAP
    wrong = total - right[0]
    return {
        "accuracy": {
            rank: intervals.accuracy(row, total, class_counts, **draws)
            for rank, row in zip(taxonomy.ranks, right, strict=True)
        },
        **intervals.severity(by_height(right, total), total, class_counts, **draws),
        "uniform": intervals.mean_of_mistakes(uniform_heights(taxonomy), wrong, total, class_counts),
    }


def summaries(
    class_hits: Mapping[str, np.ndarray], class_counts: np.ndarray, taxonomy: Taxonomy, **bootstrap: Any
) -> dict[str, Summary]:
    """{head: `summary`} of what `metrics.count_hits` has counted with this taxonomy."""
    total = class_hits["total"]
    return {
        head: summary(right, total, class_counts, taxonomy, **bootstrap)
        for head, right in class_hits.items()
        if head != "total"
    }


def results(
    class_hits: Mapping[str, Mapping[str, np.ndarray]], class_counts: np.ndarray, taxonomy: Taxonomy | None
) -> dict[str, Any]:
    """What results.json says by rank: {"taxonomy": `facts` | {"models": {model: `summaries`}}}; {} without a taxonomy.

    class_hits: {model: what `metrics.count_hits` has counted with this taxonomy}. `tables.by_rank_rows` reads it.
    """
    if taxonomy is None:
        return {}
    models = {name: summaries(hits_of_model, class_counts, taxonomy) for name, hits_of_model in class_hits.items()}
    return {"taxonomy": facts(taxonomy) | {"models": models}}


def heights(labels: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy) -> np.ndarray:
    """int [N]: the height of each answer, 0..R. labels, predicted: int [N], classes."""
    return np.sum([row[predicted] != row[labels] for row in taxonomy.ancestors], 0)


def nearer(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    class_counts: np.ndarray,
    taxonomy: Taxonomy,
    **bootstrap: Any,
) -> dict[str, intervals.Bounds]:
    """Mean heights of the first answers minus those of the second, in pairs: {"mistakes", "images": bounds}.

    labels, first, second: int [N], classes. Others: as of `summary`. Below 0, the first answers are nearer.
    """
    num_classes, ranks = len(class_counts), len(taxonomy.ranks)
    codes = heights(labels, first, taxonomy) * (ranks + 1) + heights(labels, second, taxonomy)
    kinds = np.setdiff1d(codes, [0])  # both right
    pairs = np.zeros((len(kinds), num_classes), np.int32)  # small, for 300,000 classes and up to (R + 1)^2 - 1 kinds
    for row, kind in zip(pairs, kinds, strict=True):
        row[:] = np.bincount(labels[codes == kind], minlength=num_classes)
    return intervals.severity_difference(
        pairs,
        np.array(np.divmod(kinds, ranks + 1)),
        np.bincount(labels, minlength=num_classes),
        class_counts,
        ranks=ranks,
        **(bootstrap or BOOTSTRAP),
    )


def facts(taxonomy: Taxonomy) -> dict[str, Any]:
    """What a file of results says about the taxonomy: {"ranks": [R], "names": {rank: number of names}}."""
    return {"ranks": list(taxonomy.ranks), "names": taxonomy.number_of_names()}


def confused(
    labels: np.ndarray, predicted: np.ndarray, taxonomy: Taxonomy, rank: int, *, most: int
) -> list[dict[str, Any]]:
    """The pairs of nodes of a rank that are confused most: {"of", "taken_for", "images", "share"}, most images first.

    share: of the test images of the node. labels, predicted: int [N], classes. rank: index. most: number of pairs.
    """
    row, names = taxonomy.ancestors[rank], taxonomy.nodes[rank]
    true, answered = row[labels].astype(np.int64), row[predicted].astype(np.int64)
    tested = np.bincount(true, minlength=len(names))
    wrong = true != answered
    pairs, counts = np.unique(true[wrong] * len(names) + answered[wrong], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    listed = []
    for pair, count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True):
        node, other = divmod(pair, len(names))
        share = count / int(tested[node])
        listed.append({"of": names[node], "taken_for": names[other], "images": count, "share": share})
    return listed


def family_rank(ranks: Sequence[str]) -> int:
    """The rank whose confusions are listed: "family" where there is one, else the one above the classes."""
    return ranks.index("family") if "family" in ranks else min(1, len(ranks) - 1)
