"""Schedules against timm, SGD and AdamW against PyTorch's formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import optimizers


def test_warmup_cosine_equals_timm_at_every_epoch(golden_json):
    cases = golden_json("lr_schedule")
    for name, expected in cases.items():
        settings = dict(part.split("=") for part in name.split(","))
        schedule = optimizers.WarmupCosine(
            peak=float(settings["lr"]),
            epochs=int(settings["epochs"]),
            warmup_epochs=int(settings["warmup"]),
            steps_per_epoch=7,
        )
        ours = schedule(7 * tf.range(len(expected)))
        np.testing.assert_allclose(ours, expected, rtol=1e-4, err_msg=name)
        again = optimizers.WarmupCosine.from_config(schedule.get_config())
        assert float(again(23)) == float(schedule(23))


def test_warmup_drops_are_constant_within_an_epoch():
    schedule = optimizers.WarmupDrops(peak=0.1, steps_per_epoch=10, drops={160: 0.01, 180: 1e-4})
    ours = [float(schedule(10 * e + 9)) for e in (0, 1, 4, 5, 159, 160, 179, 180, 199)]
    np.testing.assert_allclose(ours, [0.02, 0.04, 0.1, 0.1, 0.1, 0.001, 0.001, 1e-5, 1e-5], rtol=1e-5)
    assert float(schedule(10)) == float(schedule(19))


@pytest.mark.parametrize(
    ("warmup", "rates"),
    [
        (2, [0.5] * 4 + [1] * 8 + [0.1]),
        (2.5, [0.4] * 4 + [0.8] * 4 + [0.9, 1, 1, 1] + [0.1]),
        (0.5, [0.5, 1] + [1] * 10 + [0.1]),
        (0, [1] * 12 + [0.1]),
    ],
)
def test_a_warm_up_may_end_within_an_epoch(warmup, rates):
    schedule = optimizers.WarmupDrops(peak=1.0, steps_per_epoch=4, drops={3: 0.1}, warmup_epochs=warmup)
    np.testing.assert_allclose([float(schedule(step)) for step in range(13)], rates, rtol=1e-6)
    again = optimizers.WarmupDrops.from_config(schedule.get_config())
    assert [float(again(step)) for step in range(13)] == [float(schedule(step)) for step in range(13)]


def test_sgd_is_torchs_when_the_rate_drops():
    """By hand: b <- .9 b + g + l2 w; w <- w - lr b, the rate falling tenfold in the middle."""
    variable = keras.Variable([1.0])
    rate = optimizers.WarmupDrops(peak=1.0, steps_per_epoch=2, drops={1: 0.1}, warmup_epochs=0)
    sgd = optimizers.SGD(rate, momentum=0.9, l2=0.01)
    w, b = 1.0, 0.0
    for step, g in enumerate((0.5, -0.25, 0.125, 1.0)):
        sgd.apply_gradients([(tf.constant([g]), variable)])
        b = 0.9 * b + g + 0.01 * w
        w -= (1.0 if step < 2 else 0.1) * b
        np.testing.assert_allclose(variable.numpy(), [w], rtol=1e-6)
    assert optimizers.SGD.from_config(sgd.get_config()).l2 == 0.01


def test_adamw_is_torchs_from_its_first_step_on():
    """By hand, with epsilon added to the corrected sqrt(v); biases and tokens are not decayed."""
    images = keras.Input([2])
    network = keras.Model(images, keras.layers.Dense(1)(images))
    kernel, bias = network.trainable_variables
    rate, decay, epsilon = 0.1, 0.05, 1e-2
    optimizer = optimizers.adamw(network, rate, weight_decay=decay, epsilon=epsilon)
    values = [kernel.numpy().astype(np.float64), bias.numpy().astype(np.float64)]
    moments = [(np.zeros_like(v), np.zeros_like(v)) for v in values]
    for step, slope in enumerate((0.5, -0.25, 0.125), start=1):
        slopes = [np.full(v.shape, slope) for v in values]
        optimizer.apply_gradients(
            [(tf.constant(g, tf.float32), v) for g, v in zip(slopes, (kernel, bias), strict=True)]
        )
        for i, g in enumerate(slopes):
            m, v = (0.9 * moments[i][0] + 0.1 * g, 0.999 * moments[i][1] + 0.001 * g**2)
            moments[i] = m, v
            decayed = values[i] * (1 - rate * decay) if i == 0 else values[i]
            values[i] = decayed - rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + epsilon)
        for variable, expected in zip((kernel, bias), values, strict=True):
            np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)
