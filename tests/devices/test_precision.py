"""Half precision in whole steps and whole trainings: a scale changes no step, and digits are learnt as in float32."""

import json
import shlex

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import workers

from deitlt_tf import train
from deitlt_tf.devices import loss_scale
from deitlt_tf.recipes import command_line


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
    measured = {}

    def of(precision: str) -> dict[str, float]:
        if precision not in measured:
            folder = tmp_path_factory.mktemp(precision)
            recipe = command_line.recipe_of(["train", *DEMO, f"--workdir={folder}", f"--precision={precision}"])
            before = keras.config.dtype_policy()
            try:
                train.main(recipe)
            finally:
                keras.config.set_dtype_policy(before)
            results = json.loads((folder / "results.json").read_text())
            heads = {"teacher": results["teacher"]["paper"]["cls"], "student": results["raw"]["paper"]["mean"]}
            measured[precision] = {name: row["overall"] for name, row in heads.items()}
            with np.load(sorted((folder / "checkpoints").iterdir())[-1], allow_pickle=False) as archive:
                scales = [name for name in archive.files if name.endswith(" loss_scale")]
            assert len(scales) == (precision == "mixed_float16")
        return measured[precision]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_digits_are_learnt_as_in_float32(accuracy, precision):
    """A point of 600 test images is 6 of them. Two trainings that differ by rounding disagree on some 20 images, half
    of them in favour of either: two standard deviations are 9 images more. So: less than 2.5 points below float32.
    """
    expected, half = accuracy("float32"), accuracy(precision)
    for name, overall in expected.items():
        assert overall > 70, f"the {name} has learnt too little for a comparison: {expected}"
        assert half[name] > overall - 2.5, (name, half, expected)
