"""Numbers: who is head, mid and tail, what counts as a hit, and how hits become percent."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf.evaluation import metrics, tables
from deitlt_tf.models import interface

CONVENTIONS = ("shots", "paper")


def sizes(counts, convention: str) -> tuple[int, ...]:
    return tuple(len(members) for members in metrics.groups(counts, convention).values())


@pytest.mark.parametrize(("count", "group"), [(101, "head"), (100, "mid"), (20, "mid"), (19, "tail"), (1, "tail")])
def test_shots_have_sharp_borders(count, group):
    found = metrics.groups([count], "shots")
    assert {name: members.tolist() for name, members in found.items()} == {
        name: [0] if name == group else [] for name in metrics.GROUPS
    }


@pytest.mark.parametrize(
    ("num_classes", "expected"),
    [(10, (3, 4, 3)), (100, (36, 35, 29)), (1000, (390, 445, 165)), (8142, (842, 3701, 3599)), (365, (110, 145, 110)),
     (20, (6, 8, 6)), (5, (2, 1, 2)), (2, (1, 0, 1))],
)  # fmt: skip
def test_paper_cuts_and_the_rule_for_other_numbers_of_classes(num_classes, expected):
    assert sizes(np.arange(num_classes, 0, -1), "paper") == expected


def test_groups_of_cifar100_lt_are_the_published_ones():
    counts = [int(500 * 0.01 ** (i / 99)) for i in range(100)]
    assert sizes(counts, "shots") == (35, 35, 30)
    assert sizes(counts, "paper") == (36, 35, 29)


def test_groups_follow_frequency_not_the_order_of_classes():
    """Like Places-LT (365 classes, 4980 down to 5 images, in no order): every class is in exactly one group."""
    counts = np.random.default_rng(0).permutation(np.geomspace(4980, 5, 365).astype(int))
    for convention in CONVENTIONS:
        head, mid, tail = metrics.groups(counts, convention).values()
        np.testing.assert_array_equal(np.sort(np.concatenate([head, mid, tail])), np.arange(365))
        assert counts[head].min() >= counts[mid].max() and counts[mid].min() >= counts[tail].max()


def test_equal_counts_keep_their_order():
    assert [members.tolist() for members in metrics.groups([7] * 10, "paper").values()] == [
        [0, 1, 2], [3, 4, 5, 6], [7, 8, 9],
    ]  # fmt: skip


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="'few'"):
        metrics.groups([1, 2], "few")


def test_describe_groups_says_what_is_what():
    text = tables.describe_groups([200, 50, 50, 3], "shots")
    assert "> 100" in text and "(1 class)" in text.replace("(1 classes)", "(1 class)") and "(2 classes)" in text


def test_mean_head_is_half_of_the_sum():
    cls, dist = tf.constant([[1.0, 2.0]]), tf.constant([[5.0, -2.0]])
    found = interface.heads({"cls": cls, "dist": dist})
    np.testing.assert_array_equal(found["mean"], [[3.0, 0.0]])
    assert list(found) == ["cls", "dist", "mean"]
    assert list(interface.heads(cls)) == ["cls"]


def test_hits_by_hand():
    """Five images of classes 0 0 1 2 2, the last one padding. CLS is right on 0, 2 and 3, DIST on 1 and 3."""
    labels, mask = tf.constant([0, 0, 1, 2, 2]), tf.constant([1.0, 1.0, 1.0, 1.0, 0.0])
    cls, dist = tf.one_hot([0, 1, 1, 2, 2], 4), 3 * tf.one_hot([1, 0, 0, 2, 2], 4)
    found = metrics.hits({"cls": cls, "dist": dist}, labels, mask, num_classes=4)
    assert {name: value.numpy().tolist() for name, value in found.items()} == {
        "cls": [1, 1, 1, 0],
        "dist": [1, 0, 1, 0],
        "mean": [1, 0, 1, 0],  # DIST is surer
        "total": [2, 1, 1, 0],
    }


def padded_set(count: int, *, batch: int):
    """Random images, labels and mask in whole batches; the last image fills up the last one."""
    generator = np.random.default_rng(15)
    images = generator.normal(size=(count, 4)).astype(np.float32)
    labels = generator.integers(0, 3, count).astype(np.int32)
    index = np.minimum(np.arange(-(-count // batch) * batch), count - 1)
    mask = (np.arange(len(index)) < count).astype(np.float32)
    return images, labels, tf.data.Dataset.from_tensor_slices((images[index], labels[index], mask)).batch(batch)


@pytest.mark.parametrize("replicas", [1, 2])
def test_count_hits_equals_a_count_with_numpy(replicas):
    images, labels, batches = padded_set(13, batch=6)
    kernels = np.random.default_rng(4).normal(size=(2, 4, 3)).astype(np.float32)
    with strategy_of(replicas).scope():
        x = keras.Input([4])
        cls, dist = keras.layers.Dense(3, name="cls"), keras.layers.Dense(3, name="dist")
        model = keras.Model(x, {"cls": cls(x), "dist": dist(x)})
        model.set_weights([kernels[0], np.zeros(3), kernels[1], np.zeros(3)])
        found = metrics.count_hits(model, batches, num_classes=3)
    logits = {"cls": images @ kernels[0], "dist": images @ kernels[1], "mean": images @ kernels.mean(0)}
    for name, values in logits.items():
        right = values.argmax(-1) == labels
        assert right[-1] and right.sum() < 13  # the filling would be hits if it counted
        np.testing.assert_array_equal(found[name], np.bincount(labels[right], minlength=3), err_msg=name)
    np.testing.assert_array_equal(found["total"], np.bincount(labels, minlength=3))


def test_count_hits_reads_the_weights_of_the_moment():
    """What is compiled for a model is used again: it has to see the next epoch's weights."""
    _, labels, batches = padded_set(6, batch=6)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    for winner in (0, 1):
        model.set_weights([np.zeros([4, 3]), np.eye(3)[winner]])
        found = metrics.count_hits(model, batches, num_classes=3)
        assert found["cls"].sum() == found["cls"][winner] == (labels == winner).sum() > 0


def test_an_empty_evaluation_set_is_refused():
    _, _, batches = padded_set(6, batch=6)
    with pytest.raises(ValueError, match="empty"):
        metrics.count_hits(keras.Sequential([keras.Input([4])]), batches.take(0), num_classes=3)


def test_a_group_is_the_mean_of_its_classes_and_overall_the_share_of_images():
    """90 of 100 and 0 of 10 in the head: 45 % as classes, 82 % as images."""
    counted = {"cls": np.array([90, 0, 3, 0]), "total": np.array([100, 10, 4, 0])}
    found = metrics.accuracies(counted, [500, 400, 50, 5])["shots"]["cls"]
    assert found == {
        "overall": pytest.approx(100 * 93 / 114),
        "head": pytest.approx(45.0),
        "mid": pytest.approx(75.0),
        "tail": None,  # its only class has no test image
    }


def test_classes_without_test_images_do_not_pull_their_group_down():
    counted = {"cls": np.array([4, 0, 1]), "total": np.array([4, 0, 2])}
    assert metrics.accuracies(counted, [300, 200, 5])["shots"]["cls"]["head"] == 100.0


def test_accuracies_are_given_under_both_conventions():
    counted = {"cls": np.arange(10), "dist": np.arange(10), "total": np.full(10, 10)}
    found = metrics.accuracies(counted, np.arange(10, 0, -1))
    assert set(found) == set(CONVENTIONS) and set(found["paper"]) == {"cls", "dist"}
    assert found["paper"]["cls"] == pytest.approx({"overall": 45.0, "head": 10.0, "mid": 45.0, "tail": 80.0})
    assert found["shots"]["cls"]["tail"] == pytest.approx(45.0) and found["shots"]["cls"]["head"] is None


def test_flatten_names_every_number_and_leaves_out_what_is_none():
    row = {"overall": 50.0, "head": 60.0, "mid": None, "tail": 0.0}
    assert metrics.flatten({"shots": {"cls": row}}, prefix="val/ema") == {
        "val/ema/shots/cls/overall": 50.0,
        "val/ema/shots/cls/head": 60.0,
        "val/ema/shots/cls/tail": 0.0,
    }


def test_table_has_aligned_rows():
    rows = {
        "CLS": {"overall": 51.25, "head": 100.0, "mid": 0.04, "tail": None},
        "student mean": {"overall": 9.0, "head": 8.0, "mid": 7.0, "tail": 6.0},
    }
    title, header, first, second = tables.format_table(rows, title="top-1").splitlines()
    assert title == "top-1" and header.split() == ["overall", "head", "mid", "tail"]
    assert first.split() == ["CLS", "51.2", "100.0", "0.0", "-"]
    assert second.split() == ["student", "mean", "9.0", "8.0", "7.0", "6.0"]
    assert len({len(line) for line in (header, first, second)}) == 1
