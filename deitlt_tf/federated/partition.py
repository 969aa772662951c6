"""Which client has which training images, and which test images have its class shares."""

from typing import NamedTuple

import numpy as np

from deitlt_tf.data.dataset import class_counts


class Partition(NamedTuple):
    """train, test: for each client the sorted indices of its training and its test images."""

    train: list[np.ndarray]
    test: list[np.ndarray]


def dirichlet(
    labels: np.ndarray, test_labels: np.ndarray, *, num_classes: int, clients: int, alpha: float, seed: int = 3407
) -> Partition:
    """The official split: of each class, image by image goes to client k with p_k, p ~ Dirichlet(alpha, ..., alpha).

    A client's test images have its training distribution: int(n_kc / N x test images) of each class c, drawn without
    replacement. Clients share test images. Where a client wants more images of a class than there are, it gets all.
    labels: int [N], training images. test_labels: int [M]. alpha: the smaller, the more the clients differ.
    seed: of one legacy NumPy generator, which draws everything in turn. Defaults to the official 3407.
    Raises ValueError if a client gets no training image.
    Source: official util/sampling.py (non_iid_dirichlet_sampling), util/dataset.py (get_imbalanced_dataset).
    """
    rng = np.random.RandomState(seed)
    rng.binomial(1, 1, size=(clients, num_classes))  # all ones, but the draw moves the generator
    owner = np.zeros(len(labels), np.int64)
    for c in range(num_classes):
        members = np.flatnonzero(labels == c)
        shares = rng.dirichlet([alpha] * clients)
        owner[members] = rng.choice(clients, size=len(members), p=shares)
    train = [np.flatnonzero(owner == k) for k in range(clients)]
    empty = [k for k, indices in enumerate(train) if not len(indices)]
    if empty:
        raise ValueError(
            f"client {empty[0]} of {clients} gets none of the {len(labels)} training images: choose fewer clients, a "
            f"larger alpha than {alpha:g}, or another seed of the partition."
        )
    counts = np.array([class_counts(labels[indices], num_classes) for indices in train])
    return Partition(train, local_tests(test_labels, counts, rng))


def local_test_counts(train_counts: np.ndarray, test_images: int) -> np.ndarray:
    """int(n_kc / N x test_images), int [K, C]: the test images that each client wants. train_counts: int [K, C]."""
    return (train_counts / train_counts.sum() * test_images).astype(np.int64)


def local_tests(test_labels: np.ndarray, train_counts: np.ndarray, rng: np.random.RandomState) -> list[np.ndarray]:
    """The test images of each client, sorted. train_counts: int [K, C]."""
    by_class = [np.flatnonzero(test_labels == c) for c in range(train_counts.shape[1])]
    tests = []
    for wanted in local_test_counts(train_counts, len(test_labels)):
        drawn = []
        for members, count in zip(by_class, wanted, strict=True):
            drawn.append(rng.choice(members, min(count, len(members)), replace=False))
            if count > len(members):  # the official code draws the rest again and drops repeats
                rng.choice(members, min(count - len(members), len(members)), replace=False)
        tests.append(np.unique(np.concatenate(drawn)))
    return tests
