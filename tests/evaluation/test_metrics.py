"""Numbers: who is head, mid and tail, what counts as a hit, and how hits become percent."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf.data.dataset import Source, long_tail_counts
from deitlt_tf.evaluation import metrics

CONVENTIONS = ("shots", "paper")


def sizes(counts, convention: str) -> tuple[int, ...]:
    return tuple(len(members) for members in metrics.groups(counts, convention).values())


@pytest.mark.parametrize(("count", "group"), [(101, "head"), (100, "mid"), (20, "mid"), (19, "tail"), (1, "tail")])
def test_shots_have_sharp_borders(count, group):
    groups = metrics.groups([count], "shots")
    assert {name: members.tolist() for name, members in groups.items()} == {
        name: [0] if name == group else [] for name in metrics.GROUPS
    }


def cifar_lt(num_classes: int, *, imbalance: float, largest: int | None = None) -> np.ndarray:
    """Training counts of CIFAR-LT; largest: images of the most frequent class, by default those of CIFAR."""
    largest = largest or {10: 5000, 100: 500}[num_classes]
    return np.array([int(largest * imbalance ** (-i / (num_classes - 1))) for i in range(num_classes)])


def list_like(num_classes: int, *, images: int, largest: int, smallest: int) -> np.ndarray:
    """Counts of this many classes and images, between the largest and the smallest class."""
    counts = np.full(num_classes, smallest)
    counts[0] = largest
    rest = images - counts.sum()
    share, left = divmod(rest, num_classes - 2)
    counts[1:-1] += share
    counts[1 : 1 + left] += 1
    assert counts.sum() == images and counts.max() == largest
    return counts


PAPER = {
    "CIFAR-10-LT, rho 100": (cifar_lt(10, imbalance=100), (3, 4, 3)),
    "CIFAR-10-LT, rho 50": (cifar_lt(10, imbalance=50), (3, 4, 3)),
    "CIFAR-100-LT, rho 100": (cifar_lt(100, imbalance=100), (36, 35, 29)),
    "CIFAR-100-LT, rho 33.3": (cifar_lt(100, imbalance=33.3), (36, 35, 29)),
    "CIFAR-100-LT, other order": (cifar_lt(100, imbalance=50)[::-1], (36, 35, 29)),
    "ImageNet-LT": (list_like(1000, images=115_846, largest=1280, smallest=5), (390, 445, 165)),
    "iNaturalist 2018": (list_like(8142, images=437_513, largest=1000, smallest=2), (842, 3701, 3599)),
    "iNaturalist 2018, 13 unreadable": (list_like(8142, images=437_500, largest=1000, smallest=2), (842, 3701, 3599)),
}
OTHERS = {
    "own set of 100 classes": (np.geomspace(300, 3, 100).astype(int), (30, 40, 30)),
    "the same profile from another largest class": (cifar_lt(100, imbalance=100, largest=490), (30, 40, 30)),
    "one image more than CIFAR-100-LT": (cifar_lt(100, imbalance=100) + (np.arange(100) == 50), (30, 40, 30)),
    "CIFAR-100 with two sizes of classes": (np.repeat([500, 5], 50), (30, 40, 30)),
    "own set of 1000 classes": (np.geomspace(1280, 5, 1000).astype(int), (300, 400, 300)),
    "own set of 8142 classes": (np.arange(8142, 0, -1), (2443, 3256, 2443)),
    "365 classes": (np.arange(365, 0, -1), (110, 145, 110)),
    "20 classes": (np.arange(20, 0, -1), (6, 8, 6)),
    "5 classes": (np.arange(5, 0, -1), (2, 1, 2)),
    "2 classes": (np.array([2, 1]), (1, 0, 1)),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_data_are_recognised_by_their_counts_and_cut_as_in_the_paper(name):
    counts, expected = PAPER[name]
    assert metrics.paper_cuts(counts) == sizes(counts, "paper") == expected


@pytest.mark.parametrize("name", OTHERS)
def test_other_data_are_cut_by_rank_whatever_their_number_of_classes(name):
    counts, expected = OTHERS[name]
    assert metrics.paper_cuts(counts) is None and sizes(counts, "paper") == expected


@pytest.mark.parametrize("imbalance", [1, 2, 10, 20, 50, 64, 100, 200, 500])
@pytest.mark.parametrize("num_classes", [10, 100])
def test_every_imbalance_of_cifar_lt_is_recognised(num_classes, imbalance):
    full = np.full(num_classes, {10: 5000, 100: 500}[num_classes])
    counts = long_tail_counts(full, imbalance=imbalance, imbalance_type="exp")
    assert metrics.paper_cuts(counts) == metrics.PAPER_CUTS[num_classes]


@pytest.mark.parametrize("counts", [[7] * 10, [500] * 100, [199, 150, 100], [1, 1], [5]])
def test_a_balanced_set_has_no_head_and_no_tail(counts):
    assert sizes(counts, "paper") == (0, 0, 0)
    measured = metrics.accuracies({"cls": np.ones(len(counts)), "total": np.full(len(counts), 2)}, counts)
    assert measured["paper"]["cls"] == {"overall": 50, "balanced": 50, "head": None, "mid": None, "tail": None}


def test_twice_as_many_images_are_a_long_tail():
    assert sizes([200, 150, 100], "paper") == (1, 1, 1) and not metrics.is_long_tailed([199, 150, 100])


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
    counts = [7, 7, 1, 7, 7, 1, 7, 1, 7, 7]
    assert [members.tolist() for members in metrics.groups(counts, "paper").values()] == [
        [0, 1, 3], [4, 6, 8, 9], [2, 5, 7],
    ]  # fmt: skip


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="'few'"):
        metrics.groups([1, 2], "few")


def test_hits_by_hand():
    """Five images of classes 0 0 1 2 2, the last one padding. CLS is right on 0, 2 and 3, DIST on 1 and 3."""
    labels, mask = tf.constant([0, 0, 1, 2, 2]), tf.constant([1.0, 1.0, 1.0, 1.0, 0.0])
    cls, dist = tf.one_hot([0, 1, 1, 2, 2], 4), 3 * tf.one_hot([1, 0, 0, 2, 2], 4)
    hits = metrics.hits({"cls": cls, "dist": dist}, labels, mask, num_classes=4)
    assert {name: value.numpy().tolist() for name, value in hits.items()} == {
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
        counted = metrics.count_hits(model, batches, num_classes=3)
    logits = {"cls": images @ kernels[0], "dist": images @ kernels[1], "mean": images @ kernels.mean(0)}
    for name, values in logits.items():
        right = values.argmax(-1) == labels
        assert right[-1] and right.sum() < 13  # the filling would be hits if it counted
        np.testing.assert_array_equal(counted[name], np.bincount(labels[right], minlength=3), err_msg=name)
    np.testing.assert_array_equal(counted["total"], np.bincount(labels, minlength=3))


def test_count_hits_reads_the_weights_of_the_moment():
    """What is compiled for a model is used again: it has to see the next epoch's weights."""
    _, labels, batches = padded_set(6, batch=6)
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(3)])
    for winner in (0, 1):
        model.set_weights([np.zeros([4, 3]), np.eye(3)[winner]])
        counted = metrics.count_hits(model, batches, num_classes=3)
        assert counted["cls"].sum() == counted["cls"][winner] == (labels == winner).sum() > 0


def test_an_empty_evaluation_set_is_refused():
    _, _, batches = padded_set(6, batch=6)
    with pytest.raises(ValueError, match="empty"):
        metrics.count_hits(keras.Sequential([keras.Input([4])]), batches.take(0), num_classes=3)


def test_a_group_is_the_mean_of_its_classes_and_overall_the_share_of_images():
    """90 of 100 and 0 of 10 in the head: 45 % as classes, 82 % as images."""
    counted = {"cls": np.array([90, 0, 3, 0]), "total": np.array([100, 10, 4, 0])}
    row = metrics.accuracies(counted, [500, 400, 50, 5])["shots"]["cls"]
    assert row == {
        "overall": pytest.approx(100 * 93 / 114),
        "balanced": pytest.approx(55.0),  # of 90, 0 and 75 %
        "head": pytest.approx(45.0),
        "mid": pytest.approx(75.0),
        "tail": None,  # its only class has no test image
    }


def test_classes_without_test_images_do_not_pull_their_group_down():
    counted = {"cls": np.array([4, 0, 1]), "total": np.array([4, 0, 2])}
    assert metrics.accuracies(counted, [300, 200, 5])["shots"]["cls"]["head"] == 100.0


def test_accuracies_are_given_under_both_conventions():
    counted = {"cls": np.arange(10), "dist": np.arange(10), "total": np.full(10, 10)}
    measured = metrics.accuracies(counted, np.arange(10, 0, -1))
    assert set(measured) == set(CONVENTIONS) and set(measured["paper"]) == {"cls", "dist"}
    assert measured["paper"]["cls"] == pytest.approx(
        {"overall": 45.0, "balanced": 45.0, "head": 10.0, "mid": 45.0, "tail": 80.0}
    )
    assert measured["shots"]["cls"]["tail"] == pytest.approx(45.0) and measured["shots"]["cls"]["head"] is None


def test_flatten_names_every_number_and_leaves_out_what_is_none():
    row = {"overall": 50.0, "head": 60.0, "mid": None, "tail": 0.0}
    assert metrics.flatten({"shots": {"cls": row}}, prefix="val/ema") == {
        "val/ema/shots/cls/overall": 50.0,
        "val/ema/shots/cls/head": 60.0,
        "val/ema/shots/cls/tail": 0.0,
    }


@pytest.mark.parametrize("replicas", [1, 2])
def test_counted_hits_give_the_accuracy_on_a_split(replicas):
    """A network whose logits are the mean colours; class c is an image of colour c, but for one image in four."""
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
    colours = np.where(np.arange(8) % 4 == 3, (labels + 1) % 3, labels)
    pixels = np.broadcast_to(np.eye(3)[colours][:, None, None] * 255, (8, 9, 9, 3)).astype(np.uint8)
    source = Source(pixels, labels, tuple("abc"))
    with strategy_of(replicas).scope():
        images = keras.Input((8, 8, 3))
        model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
        hits = metrics.count(model, source, eval_resize=0, max_pixels=10**6, num_classes=3, title="test")
    measured = metrics.accuracies(hits, np.array([500, 50, 5]))
    assert measured["shots"]["cls"] == pytest.approx(
        {"overall": 75.0, "balanced": 100 * 7 / 9, "head": 100 * 2 / 3, "mid": 100 * 2 / 3, "tail": 100.0}
    )


def test_logits_of_several_crops_are_averaged():
    images = keras.Input((4, 4, 3))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(images))
    crops = np.random.default_rng(0).normal(size=(6, 5, 4, 4, 3)).astype(np.float32)
    means = metrics.logits_of(model, tf.constant(crops), crops=5)
    np.testing.assert_allclose(means, crops.mean((1, 2, 3)), rtol=1e-4, atol=1e-6)
    batch = tf.data.Dataset.from_tensors((crops, means.numpy().argmax(-1).astype(np.int32), np.ones(6, np.float32)))
    hits = metrics.count_hits(model, batch, num_classes=3, crops=5)
    assert hits["cls"].sum() == hits["total"].sum() == 6


@pytest.mark.parametrize("case", ["c10_r100", "c10_r50", "c100_r100", "c100_r50", "client", "one_class", "equal"])
def test_shares_are_cut_where_fedloge_cuts_them(golden, case):
    official = golden("fedloge_groups")
    groups = metrics.groups(official[f"{case}/counts"], "share")
    ours = np.zeros(len(official[f"{case}/counts"]), int)
    for number, name in enumerate(metrics.GROUPS):
        ours[groups[name]] = number
    np.testing.assert_array_equal(ours, official[f"{case}/group"])
