"""--prior: Bayes' rule on logits, what each head assumes, and files of counts."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from deitlt_tf import losses
from deitlt_tf.serving import priors

NAMES = ("blue whale", "green", "red")


def shares(size: int):
    return st.lists(st.floats(0.01, 1), min_size=size, max_size=size).map(lambda x: np.array(x) / np.sum(x))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@given(shares(4), shares(4), st.integers(0, 9))
def test_adjusted_logits_are_the_posterior_under_the_other_class_distribution(assumed, target, seed):
    likelihood = np.random.default_rng(seed).uniform(0.1, 1, (5, 4))  # p(x | y), the same under both
    z = np.log(likelihood * assumed)
    moved = z + priors.adjustment(target=np.log(target), assumed=np.log(assumed))
    posterior = likelihood * target / np.sum(likelihood * target, axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(moved), posterior, rtol=1e-4)


def test_a_student_without_reweighting_assumes_the_training_distribution():
    counts = np.array([100, 10, 1])
    assumed = priors.log_assumed(class_counts=counts, reweighted=False)
    target = priors.log_target("training", class_names=NAMES, class_counts=counts)
    for head in ("cls", "dist", "mean"):
        np.testing.assert_allclose(assumed[head], np.log(counts / 111), atol=1e-6)
        assert np.abs(priors.adjustment(target=target, assumed=assumed[head])).max() < 1e-6


def test_a_reweighted_plain_vit_assumes_what_its_weights_made_of_the_training_distribution():
    counts = np.array([100, 10, 1])
    plain, weighted = (
        priors.log_assumed(class_counts=counts, plain=True, reweighted=reweighted) for reweighted in (False, True)
    )
    expected = np.log(losses.class_balanced_weights(counts))
    np.testing.assert_allclose(weighted["cls"] - plain["cls"], expected, atol=1e-6)


def test_a_softly_distilled_dist_assumes_what_its_teacher_does():
    """Weights of images do not move what whole distributions say, so neither beta nor K of the student matter."""
    counts = np.array([100, 10, 1])
    teacher = priors.log_assumed_by_teacher(class_counts=counts, loss="ce", reweighted=False)
    np.testing.assert_allclose(teacher, np.log(counts / 111))
    for options in ({}, {"reweighted": 0.0}, {"beta": 0.0}):
        assumed = priors.log_assumed(class_counts=counts, teacher_assumed=teacher, logit_adjustment=1.0, **options)
        np.testing.assert_allclose(assumed["dist"], teacher)
        np.testing.assert_allclose(assumed["mean"], teacher / 2)


@pytest.mark.parametrize(
    ("loss", "removed"), [("ldam", 0), ("ce", 0), ("balanced_softmax", 1), ("paco", 1), ("glmc", None), ("mdcs", None)]
)
@pytest.mark.parametrize(("sampling", "power"), [("instance", 1), ("sqrt", 0.5), ("class_balanced", 0)])
@pytest.mark.parametrize("reweighted", [False, True])
def test_a_teacher_assumes_what_its_sampling_and_weights_did_and_its_loss_did_not_undo(
    loss, removed, sampling, power, reweighted
):
    counts = np.array([100, 10, 1])
    assumed = priors.log_assumed_by_teacher(class_counts=counts, loss=loss, sampling=sampling, reweighted=reweighted)
    shares = np.log([100, 10, 1])
    expected = 0 * shares if removed is None else (power - removed - reweighted) * shares
    np.testing.assert_allclose(assumed - assumed[-1], expected, atol=0.01)  # w ~ 1 / n for so few images


def test_balanced_softmax_with_weights_and_sampling_is_lowest_at_what_it_assumes():
    """Of images that tell nothing, sum_y n_y^s w_y CE(z + log n, y) has no gradient there."""
    counts = np.array([100, 10, 1])
    z = tf.constant(priors.log_assumed_by_teacher(class_counts=counts, loss="balanced_softmax", sampling="sqrt"))
    with tf.GradientTape() as tape:
        tape.watch(z)
        each = losses.cross_entropy(tf.range(3), z + np.log(counts) + tf.zeros([3, 3], tf.float64))
        loss = tf.reduce_sum(counts**0.5 * losses.class_balanced_weights(counts) * each)
    np.testing.assert_allclose(tape.gradient(loss, z), np.zeros(3), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "power"),
    [({}, 1), ({"sampling": "sqrt"}, 0.5), ({"sampling": "class_balanced"}, 0), ({"logit_adjustment": 1.0}, 0)],
)
def test_what_training_has_taken_out_of_cls_is_not_taken_out_again(settings, power):
    assumed = priors.log_assumed(class_counts=np.array([100, 10, 1]), **settings)["cls"]
    np.testing.assert_allclose(np.diff(assumed), [-power * np.log(10)] * 2, atol=1e-6)


def test_a_reweighted_dist_is_almost_uniform_with_a_teacher_that_is_right_and_the_mean_lies_between():
    assumed = priors.log_assumed(class_counts=np.array([100, 10, 1]))
    assert np.ptp(assumed["dist"]) < 0.01  # w ~ 1 / n for counts far below 1 / (1 - beta)
    np.testing.assert_allclose(assumed["mean"], (assumed["cls"] + assumed["dist"]) / 2)


def test_dist_assumes_the_shares_of_the_teachers_labels_times_the_weights():
    counts, teacher = np.array([100, 10, 1]), np.array([50, 50, 11])
    plain = priors.log_assumed(class_counts=counts)["dist"]
    assumed = priors.log_assumed(class_counts=counts, teacher_counts=teacher)["dist"]
    np.testing.assert_allclose(assumed - plain, np.log(teacher / 111) - np.log(counts / 111))


@pytest.mark.parametrize(("sampling", "expected"), [("instance", [9, 1]), ("class_balanced", [5, 5])])
def test_the_teachers_labels_are_counted_as_often_as_sampling_shows_the_images(sampling, expected):
    labels = np.array([0] * 9 + [1] + [1] * 2)  # two of padding
    batches = [(np.eye(2)[labels], labels, np.array([1] * 10 + [0] * 2))]
    counts = priors.teacher_labels(lambda x: x, batches, class_counts=np.array([9, 1]), sampling=sampling)
    np.testing.assert_allclose(counts, np.add(expected, 1))


def test_the_labels_of_mixed_views_are_counted_as_the_stream_draws_them():
    batches = [(np.eye(3)[[0, 0, 2]], None), (np.eye(3)[[0, 1]], None)]
    np.testing.assert_array_equal(priors.mixed_teacher_labels(lambda x: x, batches, num_classes=3), [4, 2, 2])


def test_weights_from_before_reweighting_keep_what_it_takes_out():
    counts, teacher = np.array([100, 10, 1]), np.array([50, 50, 11])
    log_w = np.log(losses.class_balanced_weights(counts))
    before, after = (
        priors.log_assumed(class_counts=counts, teacher_counts=teacher, reweighted=share)["dist"] for share in (0, 1)
    )
    np.testing.assert_allclose(before, np.log(teacher / 111))
    np.testing.assert_allclose(after - before, log_w)
    # An average with d = 0.5, one step after K: half of it is re-weighted.
    share = priors.reweighted_share(step=11, reweight_step=10, decay=0.5)
    part = priors.log_assumed(class_counts=counts, teacher_counts=teacher, reweighted=share)["dist"]
    np.testing.assert_allclose(part - before, log_w / 2)


def read(tmp_path, text: str | bytes, names: tuple[str, ...] = NAMES):
    path = tmp_path / "counts.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return priors.read_counts(str(path), names)


@pytest.mark.parametrize("text", ["3\n2\n1\n", "# note\n\nred 1\nblue whale 3\ngreen\t2\n", "3e0\nred 1\n2.0"])
def test_counts_are_read_in_the_order_of_the_classes_or_by_name(tmp_path, text):
    np.testing.assert_array_equal(read(tmp_path, text), [3, 2, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3\n2\n", r"counts\.txt has no count for class 'red' \(1 missing\)"),
        ("3\n2\n1\n1\n", r"counts\.txt:4: more counts than the 3 classes"),
        ("3\nmany\n1\n", r"counts\.txt:2: 'many' is neither `count` nor `class count`"),
        ("blue whale 1\nred 2\nyellow 1\n", r"counts\.txt:3: 'yellow' is not a class"),
        ("3\n2\nblue whale 1\n", r"counts\.txt:3: class 'blue whale' has two counts"),
        ("3\n0\n1\n", r"counts\.txt:2: the count of class 'green' must be above 0"),
        ("3\nnan\n1\n", r"counts\.txt:2: the count of class 'green' must be above 0"),
        ("3\n0,5\n1\n", r"counts\.txt:2: '0,5' is neither .* \(write a decimal point, not a comma\)"),
        ("#4 1\n", r"counts\.txt has no count for class 'blue whale' \(3 missing\)"),
        ("blue whale 3\r\ngr\u00fcn 2\r\n".encode("latin-1"), r"counts\.txt is not UTF-8 text: .*byte 0xfc in line 2"),
    ],
)
def test_a_bad_file_of_counts_is_told_by_line_and_class(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff3\n2\n1\n",
        "\ufeffblue whale 3\r\ngreen 2\r\nred 1\r\n",
        "3\r2\r1",
        "  3 \n\t2\n1  ",
        "3\n2\n1\n".encode("utf-16"),
    ],
)
def test_files_of_other_systems_are_read(tmp_path, text):
    np.testing.assert_array_equal(read(tmp_path, text), [3, 2, 1])


def test_a_class_may_look_like_a_comment(tmp_path):
    np.testing.assert_array_equal(read(tmp_path, "# test shares\n#1 5\nb 6\n", ("#1", "b")), [5, 6])
    np.testing.assert_array_equal(read(tmp_path, "#\n# 5\n#b 7\nb 6\n", ("#", "b")), [5, 6])
    np.testing.assert_array_equal(read(tmp_path, "# a note\n# a note 3\nb 4", ("# a note", "b")), [3, 4])


def test_a_class_is_found_however_its_letters_are_composed(tmp_path):
    """macOS names folders with parts of letters; a file of counts is typed with whole ones."""
    whole, parts = "\u00e9t\u00e9", "e\u0301te\u0301"
    for names, text in (((parts, "b"), whole), ((whole, "b"), parts)):
        np.testing.assert_array_equal(read(tmp_path, f"{text} 5\nb 6\n", names), [5, 6])


def test_targets():
    counts = np.array([6, 3, 1])
    uniform = priors.log_target("uniform", class_names=NAMES, class_counts=counts)
    np.testing.assert_allclose(np.exp(uniform), 1 / 3)
    training = priors.log_target("training", class_names=NAMES, class_counts=counts)
    np.testing.assert_allclose(np.exp(training), [0.6, 0.3, 0.1])
    with pytest.raises(FileNotFoundError, match="--prior=unifrom: neither uniform nor training, and there is no such"):
        priors.log_target("unifrom", class_names=NAMES, class_counts=counts)
