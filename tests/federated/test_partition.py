"""The partition is the official one, index by index, and loses no image."""

import numpy as np
import pytest
from helpers.golden import Golden
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.dataset import class_counts
from deitlt_tf.federated import partition


def test_training_and_test_images_of_each_client_are_the_official_ones():
    official = Golden("fedloge_partition")
    config = official.config
    ours = partition.dirichlet(
        official["labels"],
        official["test_labels"],
        num_classes=config["num_classes"],
        clients=config["clients"],
        alpha=config["alpha"],
        seed=config["numpy_seed"],
    )
    for k in range(config["clients"]):
        np.testing.assert_array_equal(ours.train[k], official[f"train/{k}"])
        np.testing.assert_array_equal(ours.test[k], official[f"local_test/{k}"])
    counts = official["train_counts"]
    np.testing.assert_array_equal(partition.local_test_counts(counts, 10_000), official["local_test_counts"])


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from([0.3, 1.0, 100.0]), st.integers(1, 5))
def test_every_image_has_one_client_and_tests_follow_the_training_shares(seed, alpha, clients):
    rng = np.random.default_rng(seed)
    labels, test_labels = rng.integers(0, 4, 300), rng.integers(0, 4, 100)
    try:
        parts = partition.dirichlet(labels, test_labels, num_classes=4, clients=clients, alpha=alpha, seed=seed)
    except ValueError as error:
        assert "gets none of the 300 training images" in str(error)
        return
    np.testing.assert_array_equal(np.sort(np.concatenate(parts.train)), np.arange(300))
    counts = np.array([class_counts(labels[indices], 4) for indices in parts.train])
    there = class_counts(test_labels, 4)
    for k, wanted in enumerate(partition.local_test_counts(counts, 100)):
        np.testing.assert_array_equal(class_counts(test_labels[parts.test[k]], 4), np.minimum(wanted, there))


def test_a_client_without_images_is_one_sentence():
    with pytest.raises(ValueError, match=r"client . of 9 gets none of the 3 training images: choose fewer clients"):
        partition.dirichlet(np.array([0, 0, 1]), np.array([0, 1]), num_classes=2, clients=9, alpha=0.5)
