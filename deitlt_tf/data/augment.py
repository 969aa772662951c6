"""One image: the training view (crop, flip, RandAugment, erasing) and the evaluation view.

Everything is uint8, 0..255, [H, W, 3], and a pure function of its arguments: random choices come from `seed` through
stateless generators, so a view can be made again from its number. Eagerly and inside `tf.data` the result is the same.
"""

import math
from collections.abc import Callable
from functools import partial

import tensorflow as tf

from deitlt_tf import graphs
from deitlt_tf.data import randaugment as operations
from deitlt_tf.data.randaugment import RandAugment, apply_randaugment, to_uint8

MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in pixels: 255 * (.485, .456, .406)
STD = (58.395, 57.12, 57.375)  # 255 * (.229, .224, .225)
VERSION = 2  # raised when a view of the same seed and settings changes in any pixel: a teacher's kept labels are of it
_TRIES = 10  # of a random box, as in torchvision and timm


def training_view(
    *,
    image_size: int,
    crop: str,
    crop_min_scale: float,
    padding: int,
    flip: bool,
    randaugment: str,
    erasing: float,
    resize: str,
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """image, seed -> `train_view` with the settings of a recipe. randaugment: timm's notation, "" for none.

    Raises ValueError for a notation that `randaugment.parse` does not know.
    """
    return partial(
        train_view,
        size=image_size,
        crop=crop,
        scale=(crop_min_scale, 1.0),
        padding=padding,
        flip=flip,
        randaugment=operations.parse(randaugment),
        erasing=erasing,
        resize=resize,
    )


def with_clean_view(**settings) -> Callable:
    """image, seed -> the `training_view`, and the same crop and mirror image without RandAugment and erasing."""
    one = training_view(**settings)
    clean = training_view(**settings | {"randaugment": "", "erasing": 0.0})
    return lambda image, seed: (one(image, seed), clean(image, seed))


def with_second_view(*, second: dict, **settings) -> Callable:
    """image, seed -> two independent views of it. second: the settings in which the second view differs."""
    one, other = training_view(**settings), training_view(**settings | second)
    return lambda image, seed: (one(image, seed), other(image, tf.stack([~seed[0], seed[1]])))


# AutoGraph has nothing to convert here and cannot read lambdas that share a line
@tf.autograph.experimental.do_not_convert
def train_view(
    image: tf.Tensor,
    seed: tf.Tensor,
    *,
    size: int,
    crop: str = "resized",
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    padding: int = 4,
    flip: bool = True,
    randaugment: RandAugment | None = None,
    erasing: float = 0.25,
    resize: str = "fast",
) -> tf.Tensor:
    """Crop, flip, RandAugment, erasing, in timm's order: uint8 [H, W, 3] -> uint8 [size, size, 3].

    seed: int [2], (run seed, position in the stream); equal seeds give equal views.
    crop: "resized": a random box of area `scale` and aspect `ratio`, resized to `size` (RandomResizedCrop);
        "padded": resized to `size` if it is not, a random window after `padding` zeros on each side; "none": resized.
    erasing: probability of one box of noise. resize: "fast" or "exact", see `resize_to`.
    """
    layers = randaugment.layers if randaugment else 0
    # one generator call for all choices; each part is drawn whether used or not, so that one setting moves no other
    parts = [2 * _TRIES + 2, 2 * _TRIES + 2, 1, 1, 4 * layers]
    draws = tf.random.stateless_uniform([sum(parts)], seed, alg="philox")
    crop_draws, box_draws, flip_draw, erasing_draw, policy_draws = tf.split(draws, parts)
    if crop == "resized":
        shape = tf.shape(image)
        top, left, height, width = crop_box(shape[0], shape[1], crop_draws, scale=scale, ratio=ratio)
        image = resize_to(image[top : top + height, left : left + width], size, mode=resize)
    elif crop == "padded":
        image = tf.pad(resize_to(image, size, mode=resize), [[padding, padding], [padding, padding], [0, 0]])
        top, left = tf.unstack(tf.cast(crop_draws[-2:] * (2 * padding + 1), tf.int32))
        image = image[top : top + size, left : left + size]
    elif crop == "none":
        image = resize_to(image, size, mode=resize)
    else:
        raise ValueError(f"crop is {crop!r}: choose 'resized', 'padded' or 'none'")
    image = tf.ensure_shape(image, [size, size, 3])
    if flip:
        image = tf.cond(flip_draw[0] < 0.5, lambda: tf.reverse(image, [1]), lambda: image)
    if randaugment:
        image = apply_randaugment(image, policy_draws, settings=randaugment)
    if erasing:
        image = tf.cond(erasing_draw[0] < erasing, lambda: _erased(image, box_draws, seed), lambda: image)
    return tf.ensure_shape(image, [size, size, 3])


@tf.autograph.experimental.do_not_convert
def evaluation_view(image: tf.Tensor, *, size: int, resize: int) -> tf.Tensor:
    """Short side to `resize`, aspect kept, then the central `size`: uint8 [H, W, 3] -> uint8 [size, size, 3].

    resize=0: the whole image to (size, size), no crop. Bicubic, antialiased where it shrinks, as Pillow's.
    Only the pixels of the crop are computed, so a very long image costs no more than a square one.
    Raises ValueError if 0 < resize < size.
    Source: torchvision Resize (long side rounded down), CenterCrop (offset rounded to even).
    """
    if 0 < resize < size:
        raise ValueError(f"the evaluation view resizes the short side to {resize}, too small for a crop of {size}")
    if not resize:
        return resize_to(image, size, mode="exact")
    shape = tf.shape(image)[:2]
    resized = resize * shape // tf.reduce_min(shape)
    offset = tf.round(tf.cast(resized - size, tf.float32) / 2)
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=image[None],
        size=[size, size],
        scale=tf.cast(resized / shape, tf.float32),
        translation=-offset,
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.ensure_shape(to_uint8(tf.round(resampled[0])), [size, size, 3])


def crop_box(
    height: tf.Tensor, width: tf.Tensor, draws: tf.Tensor, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the first of ten boxes that lies inside, else of the central one of nearest aspect.

    area ~ U(scale) H W, log aspect ~ U(log ratio). draws: uniform float [22]. Source: torchvision RandomResizedCrop.
    """
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    heights, widths = _box_sides(rows * columns, 1 / ratio[1], 1 / ratio[0], scale, draws)
    inside = (heights > 0) & (widths > 0) & (heights <= rows) & (widths <= columns)
    central = tf.clip_by_value(columns / rows, ratio[0], ratio[1])
    fallback_height = tf.clip_by_value(tf.round(columns / central), 1, rows)
    fallback_width = tf.clip_by_value(tf.round(rows * central), 1, columns)
    first = tf.argmax(inside)  # the first True, 0 if there is none
    found = tf.reduce_any(inside)
    box_height = tf.where(found, heights[first], fallback_height)
    box_width = tf.where(found, widths[first], fallback_width)
    # the central box starts at half the free space, any other at a random part of it
    top = tf.where(found, draws[-2] * (rows - box_height + 1), (rows - box_height) / 2)
    left = tf.where(found, draws[-1] * (columns - box_width + 1), (columns - box_width) / 2)
    return tuple(tf.cast(value, tf.int32) for value in (top, left, box_height, box_width))


def erasing_box(size: int, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the first of ten boxes smaller than the image; height = width = 0 if none is.

    area ~ U(.02, 1/3) size^2, log aspect ~ U(log .3, log 1/.3). draws: uniform float [22]. Source: timm RandomErasing.
    """
    heights, widths = _box_sides(float(size * size), 0.3, 1 / 0.3, (0.02, 1 / 3), draws)
    inside = (heights < size) & (widths < size)
    first = tf.argmax(inside)
    box = tf.stack([heights[first], widths[first]]) * tf.cast(inside[first], tf.float32)
    corner = draws[-2:] * (size - box + 1)
    return tuple(tf.unstack(tf.cast(tf.concat([corner, box], 0), tf.int32)))


def _box_sides(
    area: tf.Tensor | float, low: float, high: float, scale: tuple[float, float], draws: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Rounded float heights and widths [10]; area ~ U(scale) `area`, log(height / width) ~ U(log low, log high)."""
    areas = area * (scale[0] + (scale[1] - scale[0]) * draws[:_TRIES])
    aspect = tf.exp(math.log(low) + (math.log(high) - math.log(low)) * draws[_TRIES : 2 * _TRIES])
    return tf.round(tf.sqrt(areas * aspect)), tf.round(tf.sqrt(areas / aspect))


@graphs.one_node
def _erased(image: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A random box of the square image erased. draws: of the box; the noise has a seed of its own."""
    box = erasing_box(image.shape[0], draws)
    return erase(image, box, tf.random.experimental.stateless_fold_in(seed, 1, alg="philox"))


def erase(image: tf.Tensor, box: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Noise MEAN + STD N(0, 1) per pixel and channel inside `box` (top, left, height, width), clipped to 0..255."""
    top, left, height, width = box
    noise = tf.random.stateless_normal([height, 3 * width], seed, alg="philox")
    noise = to_uint8(tf.round(tf.tile(MEAN, [width]) + tf.tile(STD, [width]) * noise))  # broadcasting [3] is slow
    noise = tf.reshape(noise, [height, width, 3])
    rows = image[top : top + height]
    rows = tf.concat([rows[:, :left], noise, rows[:, left + width :]], axis=1)
    return tf.ensure_shape(tf.concat([image[:top], rows, image[top + height :]], axis=0), image.shape)


def resize_to(image: tf.Tensor, size: int, *, mode: str) -> tf.Tensor:
    """uint8 [H, W, 3] -> uint8 [size, size, 3], bicubic; the aspect is not kept.

    "exact": antialiased, within one level of Pillow. "fast", about twice as fast: the mean over areas where both sides
    shrink, plain bicubic elsewhere (equal to "exact" when enlarging; antialiased if one side shrinks much).
    """
    if mode not in ("fast", "exact"):
        raise ValueError(f"resize is {mode!r}: choose 'fast' or 'exact'")
    if image.shape[0] == image.shape[1] == size:
        return image
    to_size = partial(tf.image.resize, image, [size, size])
    exact = partial(to_size, "bicubic", antialias=True)
    if mode == "exact":
        resized = exact()
    else:
        sides = tf.shape(image)[:2]
        both_shrink, one_shrinks_much = tf.reduce_min(sides) > size, tf.reduce_max(sides) > 3 * size // 2
        choices = [(both_shrink, partial(to_size, "area")), (one_shrinks_much, exact)]
        resized = tf.case(choices, default=partial(to_size, "bicubic"))
    return to_uint8(tf.round(resized))
