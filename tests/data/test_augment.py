"""Views of one image: boxes as properties, resizing against Pillow, views as pure functions of image and seed."""

import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from helpers import GOLDEN
from helpers.photos import SIZE, in_tf_data, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from deitlt_tf.data import augment, randaugment


def views(images, seeds, **options):
    """Training views computed inside one tf.data pipeline: uint8 [n, size, size, 3]."""
    data = tf.data.Dataset.from_tensor_slices((images, seeds))
    return np.stack(list(data.map(lambda i, s: augment.train_view(i, s, **options)).as_numpy_iterator()))


def seeds(count, run=7):
    return np.stack([np.full(count, run), np.arange(count)], axis=1)


# ---- boxes ----


@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    draws=st.lists(st.floats(0, 1, exclude_max=True, width=32), min_size=22, max_size=22),
    ratio=st.sampled_from([(3 / 4, 4 / 3), (0.1, 0.5), (2.0, 3.0), (1.0, 1.0)]),
)
@settings(max_examples=60, deadline=None)
def test_the_crop_lies_inside_any_image(height, width, draws, ratio):
    draws = np.minimum(np.float32(draws), np.float32(1 - 2**-23))  # the largest number the generator draws
    box = augment.crop_box(tf.constant(height), tf.constant(width), tf.constant(draws), scale=(0.08, 1.0), ratio=ratio)
    top, left, rows, columns = (int(value) for value in box)
    assert rows >= 1 and columns >= 1 and top >= 0 and left >= 0
    assert top + rows <= height and left + columns <= width


def boxes_of(function, count=300):
    """int [count, 4] = (top, left, height, width) for that many random draws."""
    draws = np.random.default_rng(0).random((count, 22), dtype=np.float32)
    return np.array(list(tf.data.Dataset.from_tensor_slices(draws).map(function).as_numpy_iterator()))


def test_crop_boxes_have_the_asked_area_and_ratio_and_reach_every_edge():
    sides, shares = (tf.constant(300), tf.constant(400)), {"scale": (0.2, 0.5), "ratio": (3 / 4, 4 / 3)}
    top, left, height, width = boxes_of(lambda draws: augment.crop_box(*sides, draws, **shares)).T
    area, ratio = height * width / (300 * 400), width / height
    assert area.min() > 0.19 and area.max() < 0.51 and 0.33 < area.mean() < 0.37
    assert ratio.min() > 0.74 and ratio.max() < 1.35 and abs(np.log(ratio).mean()) < 0.03
    assert top.min() < 5 and left.min() < 5 and (top + height).max() > 295 and (left + width).max() > 395


def test_a_crop_that_fits_nowhere_is_central_and_of_the_nearest_ratio():
    draws = tf.zeros([22])
    for height, width, expected in [
        (1000, 10, (493, 0, 13, 10)),
        (10, 1000, (0, 493, 10, 13)),
        (50, 50, (0, 0, 50, 50)),
    ]:
        box = augment.crop_box(tf.constant(height), tf.constant(width), draws, scale=(4.0, 4.0), ratio=(3 / 4, 4 / 3))
        assert tuple(int(value) for value in box) == expected


def test_erasing_boxes_have_the_asked_area_and_lie_inside():
    top, left, height, width = boxes_of(lambda draws: augment.erasing_box(224, draws)).T
    area = height * width / 224**2
    assert area.min() > 0.019 and area.max() < 0.34 and 0.14 < area.mean() < 0.2
    assert (height < 224).all() and (width < 224).all() and (top + height).max() <= 224 and (left + width).max() <= 224
    ratio = height / width
    assert ratio.min() > 0.28 and ratio.max() < 3.6 and ratio.min() < 0.4 and ratio.max() > 2.6
    assert not boxes_of(lambda draws: augment.erasing_box(1, draws), 20)[:, 2:].any()  # none is smaller than one pixel


def test_erasing_puts_normal_noise_into_its_box_and_nowhere_else():
    image = np.full((96, 96, 3), 200, np.uint8)
    box = [tf.constant(value) for value in (10, 20, 64, 48)]
    erased = augment.erase(tf.constant(image), box, tf.constant([3, 4])).numpy()
    inside = erased[10:74, 20:68].astype(float)
    np.testing.assert_allclose(inside.mean((0, 1)), augment.MEAN, atol=4)
    # clipping at 0 and 255, two standard deviations away, shortens the tails a little
    np.testing.assert_allclose(inside.std((0, 1)), augment.STD, atol=4)
    assert np.corrcoef(inside[..., 0].ravel(), inside[..., 1].ravel())[0, 1] < 0.1
    erased[10:74, 20:68] = 200
    np.testing.assert_array_equal(erased, image)
    again = augment.erase(tf.constant(image), box, tf.constant([3, 5])).numpy()[10:74, 20:68]
    assert (again != inside).mean() > 0.9


# ---- resizing ----


@pytest.mark.parametrize("shape", [(64, 64), (40, 57), (20, 20), (24, 50), (33, 31), (1, 1), (8, 3), (200, 20)])
@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_resizing_is_near_pillows_bicubic(shape, mode):
    image = photo(*shape, noise=2)
    ours = augment.resize_to(tf.constant(image), SIZE, mode=mode).numpy().astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    # "fast" is another filter where it shrinks
    shrinks = max(shape) > SIZE
    assert np.abs(ours - theirs).mean() <= (3 if mode == "fast" and shrinks else 0.5)
    if mode == "exact" or not shrinks or shape in ((24, 50), (200, 20)):
        assert np.abs(ours - theirs).max() <= 1


def test_resizing_to_the_same_size_changes_nothing():
    image = tf.constant(photo())
    for mode in ("fast", "exact"):
        np.testing.assert_array_equal(augment.resize_to(image, SIZE, mode=mode), image)
        unknown = in_tf_data(lambda x, m=mode: augment.resize_to(x, SIZE, mode=m), image)
        np.testing.assert_array_equal(unknown, image)
    with pytest.raises(ValueError, match="'fast' or 'exact'"):
        augment.resize_to(image, SIZE, mode="cubic")


# ---- views ----

EVERYTHING = {"size": SIZE, "randaugment": randaugment.RandAugment(probability=1.0), "erasing": 1.0}


@pytest.mark.parametrize(
    "options",
    [
        {"crop": "resized", "randaugment": randaugment.RandAugment(layers=1, probability=1.0)},
        {"crop": "resized", "resize": "exact"},
        {"crop": "padded"},
        {"crop": "none", "resize": "exact"},
    ],
    ids=str,
)
def test_a_view_is_a_function_of_image_and_seed(options):
    image, options = photo(45, 61), {"size": SIZE, "erasing": 1.0, **options}
    numbers = np.concatenate([seeds(8), seeds(8, run=8), seeds(8)])
    many = views(np.stack([image] * 24), numbers, **options)
    np.testing.assert_array_equal(many[16:], many[:8])
    assert len({view.tobytes() for view in many}) == 16
    for index in (0, 5, 12):
        eager = augment.train_view(tf.constant(image), tf.constant(numbers[index]), **options)
        assert eager.dtype == tf.uint8 and eager.shape == (SIZE, SIZE, 3)
        np.testing.assert_array_equal(eager, many[index])


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (1, 50), (50, 1), (31, 47), (200, 100)])
@pytest.mark.parametrize("crop", ["resized", "padded", "none"])
def test_tiny_and_odd_images_make_views(shape, crop):
    for seed in seeds(2):
        view = augment.train_view(tf.constant(photo(*shape)), tf.constant(seed), **EVERYTHING, crop=crop)
        assert view.shape == (SIZE, SIZE, 3)


def test_a_source_that_tells_no_shape_makes_views_of_known_shape():
    data = tf.data.Dataset.from_tensors(tf.io.encode_png(photo()))
    data = data.map(lambda d: augment.train_view(tf.io.decode_png(d, channels=3), tf.constant([1, 2]), size=SIZE))
    assert data.element_spec == tf.TensorSpec([SIZE, SIZE, 3], tf.uint8)


def test_half_of_the_views_are_flipped():
    image = photo()
    made = views(np.stack([image] * 200), seeds(200), size=SIZE, crop="none", erasing=0.0)
    flipped = (made == image[:, ::-1]).all((1, 2, 3))
    assert ((made == image).all((1, 2, 3)) ^ flipped).all() and 70 < flipped.sum() < 130
    kept = views(np.stack([image] * 20), seeds(20), size=SIZE, crop="none", erasing=0.0, flip=False)
    np.testing.assert_array_equal(kept, [image] * 20)


def test_padded_crops_are_windows_of_the_zero_padded_image():
    image = np.maximum(photo(), 1)
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    made = views(np.stack([image] * 300), seeds(300), size=SIZE, crop="padded", erasing=0.0, flip=False)
    offsets = [
        next((y, x) for y in range(9) for x in range(9) if (padded[y : y + SIZE, x : x + SIZE] == view).all())
        for view in made
    ]
    for axis in (0, 1):
        assert set(np.array(offsets)[:, axis]) == set(range(9))


def test_erasing_happens_as_often_as_asked_and_moves_no_other_choice():
    images = np.stack([photo()] * 200)
    plain = views(images, seeds(200), size=SIZE, crop="padded", erasing=0.0)
    erased = views(images, seeds(200), size=SIZE, crop="padded", erasing=0.25)
    changed = (plain != erased).any(-1).mean((1, 2))
    assert 30 < (changed > 0).sum() < 72
    assert (changed < 0.36).all()


def test_randaugment_moves_neither_crop_nor_flip():
    images = np.stack([photo()] * 50)
    options = {"size": SIZE, "crop": "padded", "erasing": 0.0}
    idle = views(images, seeds(50), randaugment=randaugment.RandAugment(probability=0.0), **options)
    np.testing.assert_array_equal(idle, views(images, seeds(50), **options))


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="crop is 'center'"):
        augment.train_view(tf.constant(photo()), tf.constant([0, 0]), size=SIZE, crop="center")
    with pytest.raises(ValueError, match="short side to 20, too small for a crop of 32"):
        augment.evaluation_view(tf.constant(photo()), size=SIZE, resize=20)


@pytest.mark.parametrize("shape", [(60, 84), (97, 51)])
def test_five_crops_are_the_windows_of_the_resized_image(shape):
    """torchvision's Resize and FiveCrop: top left, top right, bottom left, bottom right, centre."""
    image, side, short = photo()[: shape[0], : shape[1]], 24, 30
    height, width = image.shape[:2]
    rows, columns = (short * n // min(height, width) for n in (height, width))
    whole = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BICUBIC)).astype(int)
    ours = augment.five_crops(tf.constant(image), size=side, resize=short).numpy().astype(int)
    bottom, right = rows - side, columns - side
    centre = (round(bottom / 2), round(right / 2))
    for crop, (top, left) in zip(ours, [(0, 0), (0, right), (bottom, 0), (bottom, right), centre], strict=True):
        assert np.abs(crop - whole[top : top + side, left : left + side]).max() <= 1
    with pytest.raises(ValueError, match="five crops of 24 pixels need a short side of at least 24, and it is 20"):
        augment.five_crops(tf.constant(image), size=24, resize=20)


@pytest.mark.parametrize("shape", [(60, 80), (81, 60), (20, 33), (36, 36), (37, 500)])
def test_the_evaluation_view_equals_pillows_resize_and_centre_crop(shape):
    image = photo(*shape)
    height, width = shape
    short = min(shape)
    scaled = Image.fromarray(image).resize((width * 36 // short, height * 36 // short), Image.Resampling.BICUBIC)
    top, left = round((scaled.size[1] - SIZE) / 2), round((scaled.size[0] - SIZE) / 2)
    expected = np.asarray(scaled)[top : top + SIZE, left : left + SIZE].astype(int)
    ours = augment.evaluation_view(tf.constant(image), size=SIZE, resize=36)
    assert ours.shape == (SIZE, SIZE, 3) and np.abs(ours.numpy() - expected).max() <= 1
    np.testing.assert_array_equal(in_tf_data(lambda x: augment.evaluation_view(x, size=SIZE, resize=36), image), ours)


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (60, 80), (9, 12), (1, 1)])
def test_the_evaluation_view_without_crop_sees_the_whole_image(shape):
    image = photo(*shape)
    ours = augment.evaluation_view(tf.constant(image), size=SIZE, resize=0).numpy().astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    assert np.abs(ours - theirs).max() <= (shape != (SIZE, SIZE))


def test_a_very_long_image_is_no_memory_bomb():
    image = tf.zeros([1, 200_000, 3], tf.uint8) + 9  # its short side at 256 would be 40 gigabytes of floats
    assert (augment.evaluation_view(image, size=224, resize=256).numpy() == 9).all()


MEMORY = """
import resource
import tensorflow as tf
from deitlt_tf.data import augment, decode

views = [
    lambda image: augment.evaluation_view(image, size=224, resize=256),
    lambda image: augment.evaluation_view(image, size=224, resize=0),
    lambda image: augment.train_view(image, [1, 2], size=224, crop="none", resize="fast", erasing=0.0),
    lambda image: augment.train_view(image, [1, 2], size=224, crop="padded", resize="exact", erasing=0.0),
    lambda image: augment.train_view(image, [1, 2], size=224, crop="resized", erasing=0.0),
]
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
for view in views:
    view(tf.zeros([300, 400, 3], tf.uint8))
before = peak()
for shape in ([5, decode.MAX_SIDE, 3], [decode.MAX_SIDE, 5, 3], [5, 900_000, 3], [900_000, 5, 3]):
    for view in views:
        view(tf.zeros(shape, tf.uint8))
print(peak() - before)
"""


@pytest.mark.slow
def test_long_images_take_no_more_memory_than_their_pixels():
    """Without the crop's support 2,300 MB for 5 x 900,000 pixels."""
    result = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(result.stdout.split()[-1]) < 150


@pytest.mark.parametrize("shape", [(7, 900), (900, 7), (3, 300), (45, 800), (2, 5000)])
def test_long_images_look_as_pillow_resizes_them(shape):
    image = photo(*shape)
    ours = augment.resize_to(tf.constant(image), SIZE, mode="exact").numpy().astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("size", [8, 33])
@pytest.mark.parametrize("resize", [33, 60])
@pytest.mark.parametrize("shape", [(200, 300), (9, 400), (500, 40), (33, 33), (1, 90), (61, 60)])
def test_the_crop_alone_is_what_the_whole_image_would_give(shape, size, resize):
    image = photo(*shape)
    height, width = (resize * side // min(shape) for side in shape)
    whole = tf.image.resize(image, [height, width], "bicubic", antialias=True)
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = np.clip(np.round(whole[top : top + size, left : left + size]), 0, 255)
    ours = augment.evaluation_view(tf.constant(image), size=size, resize=resize).numpy().astype(int)
    assert np.abs(ours - expected).max() <= 1 and (ours != expected).mean() < 0.02


@pytest.mark.parametrize("photo", [0, 1])
def test_whole_views_are_as_bright_and_as_varied_as_timms(photo):
    expected = json.loads((GOLDEN / "timm_views.json").read_text())[f"photo {photo}"]
    image, count = tf.constant(load_sample_images().images[photo]), 1500
    view = partial(augment.train_view, image, size=64, randaugment=randaugment.RandAugment())

    def moments(position):
        pixels = tf.cast(view(tf.stack([tf.constant(0, tf.int64), position])), tf.float32)
        return tf.nn.moments(pixels, [0, 1])

    views = tf.data.Dataset.range(count).map(moments, num_parallel_calls=tf.data.AUTOTUNE).batch(count)
    means, variances = (part.numpy() for part in next(iter(views)))
    spread = np.array(expected["spread of means"])
    error = 4 * spread / np.sqrt(count)  # four standard errors of a mean
    np.testing.assert_array_less(np.abs(means.mean(0) - expected["mean"]), error)
    np.testing.assert_array_less(np.abs(means.std(0) - spread), error)
    np.testing.assert_array_less(np.abs(np.sqrt(variances).mean(0) - expected["mean deviation within"]), error)


# ---- the views of a recipe ----

SETTINGS = {
    "image_size": SIZE, "crop": "padded", "crop_min_scale": 0.08, "padding": 4, "flip": True,
    "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 1.0, "resize": "fast",
}  # fmt: skip


def test_the_settings_of_a_recipe_make_the_view_that_they_name():
    image, seed = tf.constant(photo(45, 61)), tf.constant(seeds(3)[2])
    for crop in ("padded", "resized"):
        ours = augment.training_view(**SETTINGS | {"crop": crop, "crop_min_scale": 0.5})(image, seed)
        policy = randaugment.RandAugment()
        whole = augment.train_view(image, seed, size=SIZE, crop=crop, scale=(0.5, 1), randaugment=policy, erasing=1.0)
        np.testing.assert_array_equal(ours, whole)


def test_the_clean_view_has_the_same_crop_and_mirror_image_and_nothing_else():
    image, plain = tf.constant(photo()), SETTINGS | {"randaugment": "", "erasing": 0.0}
    for seed in map(tf.constant, seeds(6)):
        view, clean = augment.with_clean_view(**SETTINGS)(image, seed)
        np.testing.assert_array_equal(view, augment.training_view(**SETTINGS)(image, seed))
        np.testing.assert_array_equal(clean, augment.training_view(**plain)(image, seed))


def test_the_second_view_is_drawn_anew_with_its_own_settings():
    image, plain = tf.constant(photo()), SETTINGS | {"randaugment": "", "erasing": 0.0}
    pair = augment.with_second_view(second={"randaugment": "", "erasing": 0.0}, **SETTINGS)
    windows = set()
    for seed in map(tf.constant, seeds(6)):
        first, second = pair(image, seed)
        np.testing.assert_array_equal(first, augment.training_view(**SETTINGS)(image, seed))
        windows.add((second.numpy().tobytes(), augment.training_view(**plain)(image, seed).numpy().tobytes()))
    assert sum(second != first for second, first in windows) >= 5  # another crop than the first view's
