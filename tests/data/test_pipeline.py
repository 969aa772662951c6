"""Batches: a stream is a function of its position, an epoch shows what it says, evaluation shows every image once."""

import functools
import gc

import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from deitlt_tf.data import augment, pipeline
from deitlt_tf.data.dataset import Source

# Without RandAugment, whose graph takes seconds to build: it draws from the same seed.
AUGMENTED = functools.partial(augment.train_view, size=8, erasing=0.5)


def as_it_is(image, seed=None):
    return image


def source(count: int, *, labels=None) -> Source:
    """Image i is filled with noise, but for its corner, which holds i; by default i is its label, too."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(count) % 256
    labels = np.arange(count) if labels is None else labels
    return Source(images, np.asarray(labels, np.int32), tuple(f"c{i}" for i in range(max(labels) + 1)))


def shown(data: Source, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    steps_per_epoch = pipeline.steps_per_epoch(len(data), batch=options["batch"])
    options = {"view": as_it_is, "steps_per_epoch": steps_per_epoch} | options
    return list(pipeline.train(data, **options).as_numpy_iterator())


def order(data: Source, **options) -> np.ndarray:
    return np.concatenate([labels for _, labels in shown(data, **options)])


@pytest.mark.parametrize(
    ("num_images", "batch", "repeats", "steps"),
    [(50_000, 128, 1, 390), (12_406, 128, 3, 96), (300, 64, 3, 4), (200, 64, 3, 3), (300, 64, 1, 4), (5, 64, 3, 1)],
)
def test_steps_per_epoch(num_images, batch, repeats, steps):
    assert pipeline.steps_per_epoch(num_images, batch=batch, repeats=repeats) == steps


def test_any_step_can_be_recomputed_from_its_number():
    """Bit by bit, augmentation included: in the first epoch, at the border of two epochs, in the last one."""
    options = {"view": AUGMENTED, "batch": 4, "steps": 6, "repeats": 3, "seed": 5}
    whole = shown(source(10), **options)
    assert len(whole) == 6
    for first in (1, 2, 5):
        rest = shown(source(10), first_step=first, **options)
        assert len(rest) == 6 - first
        for (images, labels), (expected_images, expected_labels) in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(images, expected_images)
            np.testing.assert_array_equal(labels, expected_labels)
    # An image that comes again is augmented anew.
    views = np.concatenate([images for images, _ in whole])
    assert len(np.unique(views, axis=0)) == len(views)


def encoded(sizes: list[tuple[int, int]]) -> Source:
    """PNG bytes of noise, height and width as given."""
    draw = np.random.default_rng(0)
    noise = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    images = np.array([tf.io.encode_png(image).numpy() for image in noise], object)
    return Source(images, np.arange(len(sizes), dtype=np.int32), tuple(f"c{i}" for i in range(len(sizes))))


@pytest.mark.parametrize("height", [8, 13])
@pytest.mark.parametrize("resize", ["fast", "exact"])
@pytest.mark.parametrize("crop", ["resized", "padded"])
def test_decoded_images_give_the_same_views(height, resize, crop):
    data = encoded([(height, 8)] * 5)
    kept = pipeline.decoded(data, limit=5 * height * 8 * 3, max_pixels=1000)
    assert kept.kind == "pixels" and kept.class_names == data.class_names
    options = {"view": functools.partial(AUGMENTED, crop=crop, resize=resize), "batch": 5, "steps": 4}
    for (ours, labels), (theirs, their_labels) in zip(shown(kept, **options), shown(data, **options), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(labels, their_labels)


def test_images_are_decoded_once_only_if_they_are_of_one_size_and_few():
    alike, mixed = encoded([(8, 8)] * 3), encoded([(8, 8), (8, 8), (8, 9)])
    assert pipeline.decoded(mixed, limit=1e6, max_pixels=1000) is mixed
    assert pipeline.decoded(alike, limit=3 * 8 * 8 * 3 - 1, max_pixels=1000) is alike
    assert pipeline.decoded(alike, limit=0, max_pixels=1000) is alike
    pixels = source(3)
    assert pipeline.decoded(pixels, limit=1e6, max_pixels=1000) is pixels
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_pixels"):
        pipeline.decoded(alike, limit=1e6, max_pixels=10)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own():
    epochs = order(source(32), batch=8, steps=8).reshape(2, 32)
    other = order(source(32), batch=8, steps=4, seed=1)
    for one in (*epochs, other):
        np.testing.assert_array_equal(np.sort(one), np.arange(32))
    assert (epochs[0] != epochs[1]).any() and (epochs[0] != other).any()
    assert (epochs[0] != np.arange(32)).any()


def test_repeats_are_neighbours_and_an_epoch_is_a_multiple_of_256():
    steps = pipeline.steps_per_epoch(300, batch=64, repeats=3)
    options = {"batch": 64, "repeats": 3, "steps_per_epoch": steps}
    first, second = order(source(300), steps=2 * steps, **options).reshape(2, -1)
    assert len(first) == 256
    triples = first[:255].reshape(85, 3)
    assert (triples == triples[:, :1]).all()
    assert len(np.unique(first)) == 86  # 85 images three times, the next one once
    assert set(first) != set(second)


@pytest.mark.parametrize("power", [1.0, 0.5])
def test_exposures_of_images_vary_as_chance_lets_them(power):
    """Repeated augmentation shows a third of the images in an epoch: a binomial number of times in many epochs."""
    count, epochs, repeats = 150, 512, 3
    positions = tf.range(0, count, repeats, dtype=tf.int64)
    order = {"epoch_length": count, "repeats": repeats, "seed": 0}
    if power == 1.0:
        at = functools.partial(pipeline.image_at, num_images=count, **order)
    else:
        at = pipeline.balanced_image_at(np.zeros(count, np.int32), power=power, **order)
    epoch = tf.function(lambda number: tf.map_fn(at, number * count + positions))
    shown = [epoch(tf.constant(number, tf.int64)).numpy() for number in range(epochs)]
    assert len({tuple(images) for images in shown}) > 0.97 * epochs  # keys of 16 bits: a few come a second time
    exposures = np.bincount(np.concatenate(shown), minlength=count)
    assert exposures.std() < 1.15 * np.sqrt(epochs * 1 / 3 * 2 / 3)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 300), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 10**6))
@example(count=1, seed=0, epoch=0)
@example(count=2, seed=3, epoch=1)
def test_image_at_permutes_the_images(count, seed, epoch):
    positions = tf.data.Dataset.range(epoch * count, (epoch + 1) * count)
    at = functools.partial(pipeline.image_at, num_images=count, epoch_length=count, repeats=1, seed=seed)
    found = next(positions.map(at).batch(count).as_numpy_iterator())
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


@settings(max_examples=15, deadline=None)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    sampling=st.sampled_from(["instance", "sqrt", "class_balanced"]),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 10**6),
    length=st.integers(1, 80),
)
@example(labels=[1] * 30 + [0], sampling="class_balanced", seed=0, epoch=0, length=62)
def test_classes_get_their_share_of_every_epoch_and_images_their_share_of_the_class(
    labels, sampling, seed, epoch, length
):
    at = pipeline.balanced_image_at(
        np.array(labels), power=pipeline.SAMPLING[sampling], epoch_length=length, repeats=1, seed=seed
    )
    positions = tf.data.Dataset.range(epoch * length, (epoch + 1) * length)
    found = next(positions.map(at).batch(length).as_numpy_iterator())
    counts = np.bincount(labels)
    wanted = {"instance": counts, "sqrt": np.sqrt(counts), "class_balanced": counts > 0}[sampling] * 1.0
    seen = np.bincount(np.array(labels)[found], minlength=len(counts))
    assert np.abs(seen - length * wanted / wanted.sum()).max() <= 1
    for label in np.flatnonzero(counts):
        each = np.bincount(found, minlength=len(labels))[np.array(labels) == label]
        assert each.max() - each.min() <= 1


def test_sampling_by_class_is_an_order_of_its_own_each_epoch_and_can_be_recomputed():
    labels = np.repeat([0, 1, 2], [20, 8, 4])
    options = {"batch": 8, "steps": 8, "sampling": "class_balanced"}
    whole = shown(source(32, labels=labels), **options)
    first, second = (np.concatenate([images[:, 0, 0, 0] for images, _ in part]) for part in (whole[:4], whole[4:]))
    assert (first != second).any()
    assert np.abs(np.bincount(labels[first]) - 32 / 3).max() < 1
    rest = shown(source(32, labels=labels), first_step=5, **options)
    for (images, seen), (expected, expected_seen) in zip(rest, whole[5:], strict=True):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(seen, expected_seen)
    triples = order(source(32), batch=8, steps=3, repeats=2, sampling="sqrt", steps_per_epoch=4).reshape(-1, 2)
    np.testing.assert_array_equal(triples[:, 0], triples[:, 1])


def test_an_image_keeps_its_label_and_labels_keep_their_numbers():
    labels = [3, 0, 2, 1, 3, 3, 0, 2]
    for images, seen in shown(source(8, labels=labels), batch=4, steps=4):
        assert images.dtype == np.uint8 and seen.dtype == np.int32
        np.testing.assert_array_equal(seen, np.array(labels)[images[:, 0, 0, 0]])


@pytest.mark.parametrize(("count", "batches"), [(10, 3), (8, 2), (3, 1)])
def test_evaluation_shows_every_image_once_in_order_and_masks_the_rest(count, batches):
    seen = list(pipeline.evaluation(source(count), view=as_it_is, batch=4).as_numpy_iterator())
    assert len(seen) == batches and all(len(part) == 4 for batch in seen for part in batch)
    images, labels, mask = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    np.testing.assert_array_equal(mask, np.arange(4 * batches) < count)
    np.testing.assert_array_equal(labels[:count], np.arange(count))
    np.testing.assert_array_equal(images[:count], source(count).images)


def test_files_encoded_images_and_pixels_are_the_same(tmp_path):
    pixels = source(5)
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for file, image in zip(files, pixels.images, strict=True):
        Image.fromarray(image).save(file)
    paths = Source(np.array([str(file) for file in files], object), pixels.labels, pixels.class_names)
    encoded = Source(np.array([file.read_bytes() for file in files], object), pixels.labels, pixels.class_names)
    expected = shown(pixels, batch=5, steps=2)
    for other in (paths, encoded):
        for (images, labels), (same_images, same_labels) in zip(shown(other, batch=5, steps=2), expected, strict=True):
            np.testing.assert_array_equal(images, same_images)
            np.testing.assert_array_equal(labels, same_labels)
        images, _, _ = next(pipeline.evaluation(other, view=as_it_is, batch=5).as_numpy_iterator())
        np.testing.assert_array_equal(images, pixels.images)


def test_readers_of_a_source_share_one_copy_of_its_images():
    data = encoded([(8, 8)] * 3)
    first, second = (pipeline.train(data, view=as_it_is, batch=1, steps=1, steps_per_epoch=1) for _ in range(2))
    (tensor,) = (reference() for source, reference in pipeline._TENSORS.items() if source is data)
    assert pipeline._tensor(data) is tensor and tensor.shape == (3,)
    third = pipeline.evaluation(data, view=as_it_is, batch=1)
    del first, second, tensor
    gc.collect()
    assert pipeline._TENSORS[data]() is not None  # the last reader needs it
    del third
    gc.collect()
    assert pipeline._TENSORS[data]() is None
    count = len(pipeline._TENSORS)
    del data
    gc.collect()
    assert len(pipeline._TENSORS) < count


def test_fewer_images_than_a_batch_fill_it():
    [(images, labels)] = shown(source(3), batch=8, steps=1)
    assert images.shape == (8, 8, 8, 3) and set(labels) == {0, 1, 2}


def test_replicas_share_the_stream_each_a_half_of_every_batch():
    stream = functools.partial(
        pipeline.train, source(16), view=AUGMENTED, batch=8, steps=3, steps_per_epoch=2, repeats=3, seed=1
    )
    strategy = strategy_of(2)
    seen = 0
    for halves, whole in zip(strategy.experimental_distribute_dataset(stream()), stream(), strict=True):
        for parts, all_of_it in zip(halves, whole, strict=True):
            parts = strategy.experimental_local_results(parts)
            assert [len(part) for part in parts] == [4, 4]
            np.testing.assert_array_equal(np.concatenate(parts), all_of_it)
        seen += 1
    assert seen == 3
