"""Locality guidance: which maps are compared, the distance, and what it changes in a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of
from helpers.tiny_models import other_cnn

from deitlt_tf import distill, guidance, models, optimizers

COUNTS = [40, 10, 5, 2]


def student(depth=3, **options):
    keras.utils.set_random_seed(1)
    sizes = {"embed_dim": 16, "num_heads": 2, "patch_size": 4, "drop_path": 0.0}
    return models.build("deit_nano", num_classes=4, image_size=16, depth=depth, **sizes | options)


def teacher(name="resnet8"):
    keras.utils.set_random_seed(2)
    return models.build(name, num_classes=4, image_size=16)


def batch(size=8):
    draw = np.random.default_rng(0)
    return tf.constant(draw.integers(0, 256, (size, 16, 16, 3)), tf.uint8), tf.constant(draw.integers(0, 4, size))


def stepped(*, replicas=1, steps=2, weight=2.5, until=2, **options):
    with strategy_of(replicas).scope():
        network = student()
        flat = options.pop("flat", None) or teacher()
        distiller = distill.Distiller(network, flat, COUNTS, guidance=weight, guidance_steps=until, **options)
        optimizer = optimizers.adamw(network, 1e-2, also=distiller.guide.variables if distiller.guide else ())
        distiller.compile(optimizer, run_eagerly=replicas == 1)
        data = tf.data.Dataset.from_tensors(batch()).repeat(steps)
        reports = []
        log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: reports.append(dict(logs)))
        distiller.fit(data, verbose=0, shuffle=False, callbacks=[log])
    return distiller, reports


@pytest.mark.parametrize(
    ("depth", "blocks", "sides"),
    [(2, [0], [4]), (3, [0, 1], [8, 4]), (4, [0, 1, 2], [16, 8, 4]), (12, [0, 5, 10], [16, 8, 4])],
)
def test_blocks_but_the_last_are_paired_with_the_last_stages(depth, blocks, sides):
    guide = guidance.Guide(student(depth), teacher())
    assert guide.blocks == blocks
    assert [x.shape[1] for x in guide.maps] == sides
    assert [tuple(v.shape) for v in guide.variables[::2]] == [(16, x.shape[-1]) for x in guide.maps]


def test_stages_of_a_resnet50_are_its_layers():
    with keras.StatelessScope(initialize_variables=False):
        network = models.build("resnet50", num_classes=3, image_size=64)
    last = [network.get_layer(f"layer{k}").output for k in ("1.2", "2.3", "3.5", "4.2")]
    assert [id(x) for x in guidance.stages(network)[-4:]] == [id(x) for x in last]


def test_the_distance_is_the_error_in_units_of_the_map():
    guide = guidance.Guide(student(2), teacher())
    draw = np.random.default_rng(0)
    tokens, target = (tf.constant(draw.normal(size=s), tf.float32) for s in ((3, 18, 16), (3, 4, 4, 64)))
    projection = guide.projections[0]
    patches = (tokens[:, 2:] @ projection.kernel + projection.bias).numpy().reshape(3, 4, 4, 64)
    expected = ((patches - target.numpy()) ** 2).mean((1, 2, 3)) / target.numpy().var((1, 2, 3))
    np.testing.assert_allclose(guide.losses([tokens], [target]), expected, rtol=1e-4)
    # Neither the scale of the teacher's maps nor the tokens in front decide.
    projection.kernel.assign(tf.zeros_like(projection.kernel))
    ones = guide.losses([tokens], [1000 * (target - tf.reduce_mean(target, (1, 2, 3), keepdims=True))])
    np.testing.assert_allclose(ones, 1, rtol=1e-4)


def test_the_coarser_grid_is_resized_to_the_finer_one():
    guide = guidance.Guide(student(3), teacher())
    even = tf.ones((2, 18, 16))
    projection = guide.projections[0]
    value = (even[:1, 0] @ projection.kernel + projection.bias).numpy()
    target = np.random.default_rng(0).normal(size=(2, 8, 8, 32)).astype(np.float32)
    expected = ((value - target) ** 2).mean((1, 2, 3)) / target.var((1, 2, 3))
    np.testing.assert_allclose(guide.distance(projection(even[:, 2:]), tf.constant(target)), expected, rtol=1e-4)


def test_an_even_map_divides_by_no_zero():
    guide = guidance.Guide(student(2), teacher())
    assert np.isfinite(guide.losses([tf.ones((1, 18, 16))], [tf.ones((1, 4, 4, 64))])).all()


def test_the_weight_falls_to_zero_and_the_loss_is_the_sum():
    distiller, reports = stepped(steps=3)
    assert [float(distiller.guidance_weight(tf.constant(t, tf.int64))) for t in (0, 1, 2, 5)] == [2.5, 1.25, 0, 0]
    for report, weight in zip(reports, (2.5, 1.25, 0), strict=True):
        both = (report["cls_loss"] + report["dist_loss"]) / 2
        assert report["loss"] == pytest.approx(both + weight * report["guidance"], rel=1e-5)
    assert reports[-1]["guidance"] < reports[0]["guidance"]


def test_patches_learn_and_the_teacher_does_not():
    flat = teacher()
    before = [v.numpy() for v in flat.variables]
    distiller, _ = stepped(flat=flat)
    for value, variable in zip(before, flat.variables, strict=True):
        np.testing.assert_array_equal(value, variable)
    first = guidance.Guide(student(), flat)
    for new, old in zip(distiller.guide.variables, first.variables, strict=True):
        assert np.abs(new.numpy() - old.numpy()).max() > 0
    assert {id(v) for v in distiller.guide.variables} <= {id(v) for v in distiller.state}
    assert not {v.path for v in distiller.student.variables} & {v.path for v in distiller.guide.variables}


@pytest.mark.slow
def test_two_replicas_and_two_parts_equal_one():
    options = {"mixing_off_step": 0, "ema_decay": 0.5}
    one = stepped(**options)
    for other in (stepped(replicas=2, **options), stepped(accumulation=2, **options)):
        assert other[1][-1]["guidance"] == pytest.approx(one[1][-1]["guidance"], rel=1e-4)
        for a, b in zip(one[0].student.weights, other[0].student.weights, strict=True):
            np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-4, atol=1e-4)


def test_registers_are_no_patches():
    registers = student(registers=3)
    guide = guidance.Guide(registers, teacher())
    assert guide.leading == 5
    tokens = [tf.random.normal([2, 5 + 16, 16], seed=k) for k in guide.blocks]
    maps = [tf.random.normal([2, *x.shape[1:]], seed=k) for k, x in enumerate(guide.maps)]
    other = [tf.concat([x[:, :5] + 1, x[:, 5:]], 1) for x in tokens]
    np.testing.assert_array_equal(guide.losses(tokens, maps), guide.losses(other, maps))


def layered(*layers, size=16):
    """A Sequential of pixels, its layers, and logits."""
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((size, size, 3)), keras.layers.Rescaling(1 / 255), *layers, *head], name="seq")


def test_scaled_pixels_and_what_is_inside_another_model_are_no_features():
    assert guidance.stages(layered()) == []
    pixels = keras.Input((16, 16, 3))
    inner = keras.Model(pixels, keras.layers.Conv2D(5, 3, padding="same")(pixels))
    assert guidance.stages(layered(inner)) == []
    outer = guidance.stages(layered(inner, keras.layers.Conv2D(6, 3, strides=2, padding="same")))
    assert [tuple(x.shape) for x in outer] == [(None, 8, 8, 6)]


def test_a_sequential_can_guide():
    flat = layered(keras.layers.Conv2D(5, 3, strides=2, padding="same", activation="relu"))
    distiller, reports = stepped(steps=1, flat=flat, mixing_off_step=0)
    assert reports[0]["guidance"] > 0
    images = tf.cast(batch()[0], tf.float32)
    logits, (seen,) = guidance.with_maps(flat, distiller.guide.maps)(images)
    np.testing.assert_allclose(logits, flat(images), atol=1e-6)
    np.testing.assert_allclose(seen, flat.layers[1](flat.layers[0](images)), atol=1e-6)


def guided(flat, **options):
    return distill.Distiller(student(), flat, COUNTS, guidance=1, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: guided(tf.identity, guidance_steps=1), "needs a keras.Model"),
        (lambda: guided(teacher()), "guidance_steps above 0"),
        (lambda: guided(teacher(), guidance_steps=1, teacher_sees="clean"), "teacher_sees=mixed"),
        (lambda: guidance.Guide(student(1), teacher()), "two blocks or more"),
        (lambda: guidance.Guide(student(), other_cnn(16, num_classes=4)), "no layer of other has one"),
        (lambda: guidance.Guide(student(), layered()), "no layer of seq has one"),
    ],
)
def test_what_cannot_guide_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_known_classes_cannot_guide():
    distiller, _ = stepped(steps=1)
    with pytest.raises(ValueError, match="leave `teacher_classes` out"):
        distiller.step(batch(), teacher_classes=tf.zeros(8, tf.int64))


def test_without_guidance_nothing_is_added():
    distiller, reports = stepped(weight=0.0, steps=1)
    assert distiller.guide is None and "guidance" not in reports[0]
    assert len(distiller.trained) == len(distiller.student.trainable_variables)
