"""Linear heads and what can be done to them after training: lengths, sums, priors, absent classes.

    logits = features @ kernel + bias

Everything that federated training measures or saves is one such head on the features of a shared network. A function
here takes heads and returns a new one, so each correction is a formula on [D, C] numbers, without a gradient.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

SMALLEST = 1e-12  # a class vector of length 0 stays 0


class Head(NamedTuple):
    """kernel: float32 [D, C], a column for each class. bias: float32 [C]; -inf masks a class."""

    kernel: np.ndarray
    bias: np.ndarray


def new_head(features: int, num_classes: int, *, seed: int) -> Head:
    """A head as torch starts one: kernel and bias uniform in +-1 / sqrt(D). features: D. num_classes: C."""
    rng, bound = np.random.default_rng(seed), features**-0.5
    kernel = rng.uniform(-bound, bound, (features, num_classes))
    return Head(kernel.astype(np.float32), rng.uniform(-bound, bound, num_classes).astype(np.float32))


def logits(features: np.ndarray, head: Head) -> np.ndarray:
    """features [N, D] -> [N, C]."""
    return features @ head.kernel + head.bias


def lengths(head: Head) -> np.ndarray:
    """|w_c| of each class: [C]."""
    return np.linalg.norm(head.kernel, axis=0)


def rescaled(head: Head, *, length: float = 0.0) -> Head:
    """Every class vector at one length, the bias as it was: GLA-FR of the generic model, and FedAvg with equal lengths.

    length: 0: their mean length. FedLoGe sets 1.7; with a bias only the ratio of the two matters.
    Source: official util/update_baseline.py (globaltest_calibra).
    """
    own = lengths(head)
    return Head(head.kernel * ((length or own.mean()) / np.maximum(own, SMALLEST)).astype(np.float32), head.bias)


def added(*heads: Head) -> Head:
    """The head whose logits are the sum of theirs."""
    return Head(np.sum([head.kernel for head in heads], 0), np.sum([head.bias for head in heads], 0))


def realigned(local: Head, aux: Head) -> Head:
    """GLA-FR of a personal model: local head + auxiliary head, of which class c is multiplied by |local w_c|.

    Source: official util/update_baseline.py (update_weights_norm_init, localtest).
    """
    return added(local, Head(aux.kernel * lengths(local), aux.bias))


def masked(head: Head, class_counts: ArrayLike) -> Head:
    """The head with logits of -inf for classes without training images. class_counts: [C].

    The official code adds -1e10 to the weights, which masks a class only where features are not negative.
    """
    absent = np.asarray(class_counts) == 0
    return Head(head.kernel, np.where(absent, -np.inf, head.bias).astype(np.float32))


def with_prior(head: Head, local_counts: ArrayLike, global_counts: ArrayLike) -> Head:
    """logits + log(share of the class at the client / share of the class over all clients); absent classes: -inf.

    It makes the answers of a model that was trained on all clients' images those for one client's class shares.
    local_counts, global_counts: [C], training images; local_counts <= global_counts.
    """
    ours, everyone = np.asarray(local_counts, np.float64), np.asarray(global_counts, np.float64)
    present = ours > 0
    shift = np.full(len(ours), -np.inf)
    shift[present] = np.log(ours[present] / ours.sum()) - np.log(everyone[present] / everyone.sum())
    return Head(head.kernel, (head.bias + shift).astype(np.float32))
