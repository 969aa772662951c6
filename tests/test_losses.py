"""Losses and class weights against the reference and against what is known of them."""

import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from deitlt_tf import losses


def test_class_balanced_weights_equal_the_reference(golden_json):
    cases = golden_json("class_balance")
    for name, case in cases.items():
        beta = float(name.rsplit("/", 1)[1])
        ours = losses.class_balanced_weights(case["counts"], beta)
        np.testing.assert_allclose(ours, case["weights"], rtol=1e-5, err_msg=name)
    assert len(cases) > 4


@settings(deadline=None, max_examples=50)
@given(counts=st.lists(st.integers(1, 10**6), min_size=2, max_size=50), beta=st.floats(0.5, 0.99999))
def test_class_balanced_weights_sum_to_the_classes_and_favour_the_rare(counts, beta):
    weights = losses.class_balanced_weights(counts, beta)
    assert weights.dtype == np.float32 and weights.sum() == pytest.approx(len(counts), rel=1e-4)
    order = np.argsort(counts)
    assert np.all(np.diff(weights[order]) <= 1e-5)


def test_class_balanced_weights_of_beta_0_are_all_alike():
    np.testing.assert_array_equal(losses.class_balanced_weights([500, 3, 1], 0.0), [1, 1, 1])


def test_class_without_images_is_named():
    with pytest.raises(ValueError, match="class 1 has no training image"):
        losses.class_balanced_weights([5, 0, 3])


def test_distillation_terms_equal_the_reference(golden, golden_json):
    arrays, expected = golden("distillation_loss"), golden_json("distillation_loss")
    cls, dist, teacher = (tf.constant(arrays[f"{name}_logits"]) for name in ("cls", "dist", "teacher"))
    labels = tf.constant(arrays["labels"])
    half, want = 1 - expected["alpha"], expected["losses"]
    weights = losses.class_balanced_weights(expected["counts"])
    np.testing.assert_allclose(weights, expected["weights"], rtol=1e-5)

    soft_targets = half * np.mean(losses.cross_entropy(tf.constant(arrays["soft_labels"]), cls))
    assert soft_targets == pytest.approx(want["hard"]["cls_term"], rel=1e-5)
    assert half * np.mean(losses.cross_entropy(labels, cls)) == pytest.approx(
        want["hard_weighted_int_labels"]["cls_term"], rel=1e-5
    )
    each = losses.hard_distillation(dist, teacher).numpy()
    assert 0.5 * each.mean() == pytest.approx(want["hard"]["dist_term"], rel=1e-5)
    w = weights[np.argmax(teacher, -1)]
    assert 0.5 * (w * each).sum() / w.sum() == pytest.approx(want["hard_weighted"]["dist_term"], rel=1e-5)
    soft = losses.soft_distillation(dist, teacher, temperature=3.0)
    assert 0.5 * np.mean(soft) == pytest.approx(want["soft_tau3"]["dist_term"], rel=1e-5)


def test_ldam_and_vector_scaling_equal_the_reference(golden):
    case = golden("ldam_loss")
    cosines, labels = tf.constant(case["cosine_logits"]), tf.constant(case["labels"])
    counts = case.config["counts"]
    each = losses.ldam(
        labels, cosines, counts, max_margin=case.config["max_margin"], scale=case.config["scale"]
    ).numpy()
    assert each.mean() == pytest.approx(case.config["loss"], rel=1e-5)
    weights = np.array(case.config["class_weights"])[case["labels"]]
    assert (weights * each).sum() / weights.sum() == pytest.approx(case.config["loss_weighted"], rel=1e-5)
    vs = losses.vector_scaling(labels, 5 * cosines, counts, gamma=0.3, tau=1.0)
    assert np.mean(vs) == pytest.approx(case.config["vs_loss_on_5x_logits_gamma0p3_tau1"], rel=1e-5)


def test_balanced_softmax_undoes_the_prior():
    """If logits already hold log n_c, the plain softmax of logits - log n_c is what balanced softmax optimises."""
    counts, labels = np.array([900, 90, 9]), tf.constant([0, 1, 2])
    logits = tf.constant(np.random.default_rng(0).normal(size=(3, 3)), tf.float32)
    prior = tf.constant(np.log(counts), tf.float32)
    np.testing.assert_allclose(
        losses.balanced_softmax(labels, logits - prior, counts), losses.cross_entropy(labels, logits), rtol=1e-5
    )


def test_adjusted_logits_undo_the_training_prior():
    """Logits that fit the adjusted loss on the training prior are those of a balanced world."""
    counts = np.array([900, 90, 10])
    prior = losses.log_prior(counts)
    np.testing.assert_allclose(np.exp(prior), counts / 1000, rtol=1e-6)
    np.testing.assert_allclose(losses.log_prior(counts, tau=0.5), prior / 2, rtol=1e-6)
    # The best constant answer under balanced softmax is indifferent: its gradient is zero at equal logits.
    logits = tf.zeros([3, 3])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = tf.reduce_sum(counts / 1000 * losses.balanced_softmax(tf.range(3), logits, counts))
    np.testing.assert_allclose(tf.reduce_sum(tape.gradient(value, logits), 0), np.zeros(3), atol=1e-6)
