"""Mixup, CutMix and smoothing against timm; draws are functions of the seed."""

import numpy as np
import tensorflow as tf

from deitlt_tf import mixing


def test_mixup_and_cutmix_equal_timm(golden):
    case = golden("mixing")
    images, labels = tf.constant(case.images("images_nchw")), tf.constant(case["labels"])
    targets = mixing.smooth_one_hot(
        labels, num_classes=case.config["num_classes"], smoothing=case.config["label_smoothing"]
    )
    mixed, soft = mixing.mixup(images, targets, tf.constant(case.config["mixup"]["lam_drawn"], tf.float32))
    np.testing.assert_allclose(mixed, case.images("mixup_images"), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(soft, case["mixup_targets"], rtol=1e-4)

    top, left, bottom, right = (case.config["cutmix"]["box_yxyx"][i] for i in (0, 2, 1, 3))
    pasted, soft = mixing.cutmix(images, targets, tf.constant([top, left, bottom, right]))
    np.testing.assert_allclose(pasted, case.images("cutmix_images"), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(soft, case["cutmix_targets"], rtol=1e-4)


def test_cutmix_box_follows_timm_and_stays_inside():
    box = mixing.cutmix_box(tf.constant(0.75), tf.constant([0.5, 0.0]), height=12, width=12)
    assert box.numpy().tolist() == [3, 9, 0, 3]  # half of 12 * sqrt(.25) = 3 around (6, 0), clipped at the left


def draw(seed, **options):
    images = tf.random.stateless_uniform([4, 8, 8, 3], [0, 0]) * 255
    labels = tf.constant([0, 1, 2, 1])
    return images, mixing.mix(images, labels, tf.constant(seed), num_classes=3, **options)


def test_mix_is_a_function_of_the_seed_and_keeps_the_mass_of_targets():
    kinds = set()
    for k in range(20):
        images, (mixed, targets) = draw([7, k])
        _, (again, _) = draw([7, k])
        np.testing.assert_array_equal(mixed, again)
        np.testing.assert_allclose(tf.reduce_sum(targets, -1), 1, rtol=1e-5)
        pasted = np.isin(mixed.numpy().round(3), images.numpy().round(3)).all()
        kinds.add("cutmix" if pasted else "mixup")
    assert kinds == {"cutmix", "mixup"}


def test_either_kind_can_be_switched_off():
    for k in range(5):
        images, (mixed, _) = draw([1, k], mixup_alpha=0.0)
        assert np.isin(mixed.numpy(), images.numpy()).all()
        _, (mixed, targets) = draw([1, k], mixup_alpha=0.0, cutmix_alpha=0.0, smoothing=0.0)
        np.testing.assert_array_equal(mixed, images)
        np.testing.assert_array_equal(targets, tf.one_hot([0, 1, 2, 1], 3))


def test_beta_draws_have_the_mean_and_spread_of_beta():
    draws = np.array([mixing.beta_draw(tf.constant([3, k]), 0.8) for k in range(400)])
    assert abs(draws.mean() - 0.5) < 0.05
    assert abs(draws.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.02
