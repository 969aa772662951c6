"""Half precision: losses scaled through SAM, accumulation and replicas; a step that overflows moves nothing."""

import json
import shlex

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import workers
from helpers.strategies import strategy_of

from deitlt_tf import train
from deitlt_tf.devices import loss_scale
from deitlt_tf.devices.replicas import apply_summed, replica
from deitlt_tf.recipes import command_line


def scaled_step(
    gradients: list[float], scaling: loss_scale.LossScale, *, replicas: int = 1
) -> tuple[float, float, int]:
    """One step of SGD with momentum; replica i brings the i-th gradient, times scale: weight, momentum, iterations."""
    strategy = strategy_of(replicas)
    with strategy.scope():
        weight = keras.Variable(1.0)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build([weight])

        @tf.function
        def step():
            def one_replica():
                mine = tf.constant(gradients)[replica()[0]] * scaling.scale
                apply_summed(optimizer, [mine], [weight], clip_norm=0.5, scaling=scaling)

            strategy.run(one_replica)

        step()
        return float(weight.numpy()), float(optimizer.variables[-1].numpy()), int(optimizer.iterations.numpy())


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_finite_step_is_that_of_unscaled_gradients_clipped_after_the_sum(replicas):
    with strategy_of(replicas).scope():
        scaling = loss_scale.LossScale(initial=1024.0, growth_steps=1)
    weight, momentum, iterations = scaled_step([0.75] * replicas, scaling, replicas=replicas)
    assert weight == pytest.approx(1 - 0.1 * 0.5) and momentum == pytest.approx(-0.05) and iterations == 1
    assert scaling.scale.numpy() == 2048 and scaling.good_steps.numpy() == 0


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_an_overflow_on_the_second_replica_alone_moves_nothing_but_the_step_number(bad):
    with strategy_of(2).scope():
        scaling = loss_scale.LossScale(initial=1024.0)
    assert scaled_step([0.1, bad], scaling, replicas=2) == (1.0, 0.0, 1)
    assert scaling.scale.numpy() == 512 and scaling.good_steps.numpy() == 0


def test_only_float16_is_scaled():
    def network(policy):
        return keras.Sequential([keras.Input([4]), keras.layers.Dense(2, dtype=policy)])

    assert loss_scale.of(network("float32")) is None and loss_scale.of(network("mixed_bfloat16")) is None
    assert loss_scale.of(network("mixed_float16")).scale.numpy() == 2**15


def after_a_step(kind: str, *, scaled: bool) -> dict[str, np.ndarray]:
    """Variables and losses after an eager step; scaled by 2^10 as in float16, which float32 hardly notices."""
    model, variables = workers.student(parts=2) if kind == "student" else workers.MODELS[kind]()
    if scaled:
        model.scaling = loss_scale.LossScale(initial=1024.0)
    images, labels = (tf.constant(x[:8]) for x in (workers.data().images, workers.data().labels))
    parts = model.train_step(((images, images[:, :, ::-1]) if kind == "paco" else images, labels))
    return {name: np.array(x) for name, x in parts.items()} | {str(i): np.array(v) for i, v in enumerate(variables)}


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_keras_does_not_scale_a_second_time(kind):
    """Compiled under mixed_float16 a Keras model wraps its optimiser, unless told not to."""
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_float16")
        model, _ = workers.student(parts=1) if kind == "student" else workers.MODELS[kind]()
        assert model.scaling and not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["student", "teacher", "paco"])
def test_a_scale_changes_no_step(kind):
    """Through accumulation, SAM's two passes and clipping: the gradients are unscaled before anything sees them."""
    plain, scaled = (after_a_step(kind, scaled=scaled) for scaled in (False, True))
    for name, array in plain.items():
        np.testing.assert_allclose(scaled[name], array, rtol=1e-5, atol=1e-6 * np.abs(array).max(), err_msg=name)


# All the digits, not a long tail of them: a training that arrives (96 %), where rounding decides about few images.
DEMO = shlex.split("""
    --data=digits_lt --image_size=16 --crop=padded --padding=1 --flip=false --randaugment= --erasing=0
    --eval_resize=0 --repeats=1 --model=deit_nano --patch_size=4 --embed_dim=32 --depth=2 --num_heads=2 --drop_path=0
    --epochs=60 --reweight_epoch=45 --batch_size=64 --accumulation=2 --clip_norm=1 --lr=3e-3 --lr_rule=constant
    --ema_decay=0 --mixup=0 --cutmix=0 --teacher_model=resnet8 --teacher_image_size=16 --teacher_padding=1
    --teacher_flip=false --teacher_epochs=8 --teacher_batch_size=64 --teacher_lr=.1 --teacher_rho=.1
    --teacher_drops=6:0.1 --teacher_warmup_epochs=1 --teacher_reweight_epoch=6
""")


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory):
    """precision -> {network: overall accuracy, %} of the same short training; the policy is put back afterwards."""
    found = {}

    def of(precision: str) -> dict[str, float]:
        if precision not in found:
            folder = tmp_path_factory.mktemp(precision)
            flags = command_line.parse(["train", *DEMO, f"--workdir={folder}", f"--precision={precision}"])
            before = keras.config.dtype_policy()
            try:
                train.main(flags)
            finally:
                keras.config.set_dtype_policy(before)
            results = json.loads((folder / "results.json").read_text())
            heads = {"teacher": results["teacher"]["paper"]["cls"], "student": results["raw"]["paper"]["mean"]}
            found[precision] = {name: row["overall"] for name, row in heads.items()}
            with np.load(sorted((folder / "checkpoints").iterdir())[-1], allow_pickle=False) as archive:
                kept = [name for name in archive.files if name.endswith(" loss_scale")]
            assert len(kept) == (precision == "mixed_float16")
        return found[precision]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_digits_are_learnt_as_in_float32(accuracy, precision):
    """A point of 600 test images is 6 of them. Two trainings that differ by rounding disagree on some 20 images, half
    of them in favour of either: two standard deviations are 9 images more. So: less than 2.5 points below float32.
    """
    expected, found = accuracy("float32"), accuracy(precision)
    for name, overall in expected.items():
        assert overall > 70, f"the {name} has learnt too little for a comparison: {expected}"
        assert found[name] > overall - 2.5, (name, found, expected)
