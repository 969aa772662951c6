"""One image: the training view (crop, flip, RandAugment, erasing) and the evaluation view.

Images are uint8, 0..255, [H, W, 3]. Every function depends on its arguments alone: random choices come from `seed`
through stateless generators. So equal seeds give equal views, eagerly and inside `tf.data`.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from deitlt_tf import graphs
from deitlt_tf.data.randaugment import RandAugment, apply_randaugment, to_uint8
from deitlt_tf.data.randaugment import parse as parse_randaugment

MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in pixels: 255 * (.485, .456, .406)
STD = (58.395, 57.12, 57.375)  # 255 * (.229, .224, .225)
# Add 1 whenever a change of this code changes any pixel of a view of equal seed and settings: the stored labels of a
# teacher are valid for the views of one version only.
VERSION = 3
_TRIES = 10  # random boxes that are tried, as in torchvision and timm
# An image that is wider than this times its height is resized on its side, see `_resize_exact`.
_WIDE = 8


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
    """A function (image, seed) -> view: `train_view` with these settings.

    image_size: side of the view, pixels. crop_min_scale: smallest share of the image's area in a "resized" crop.
    randaugment: timm's notation, such as rand-m9-mstd0.5-inc1; "": none. The others: see `train_view`.
    Raises ValueError if `randaugment.parse` does not know the notation.
    """
    return partial(
        train_view,
        size=image_size,
        crop=crop,
        scale=(crop_min_scale, 1.0),
        padding=padding,
        flip=flip,
        randaugment=parse_randaugment(randaugment),
        erasing=erasing,
        resize=resize,
    )


def with_clean_view(**settings: Any) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function (image, seed) -> (view, clean): `clean` has the same crop and flip, no RandAugment and no erasing.

    settings: those of `training_view`.
    """
    view = training_view(**settings)
    clean = training_view(**settings | {"randaugment": "", "erasing": 0.0})
    return lambda image, seed: (view(image, seed), clean(image, seed))


def with_second_view(
    *, second: dict[str, Any], **settings: Any
) -> Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function (image, seed) -> two independent views of the image.

    settings: those of `training_view` for the first view. second: the settings in which the second view differs.
    """
    first_view, second_view = training_view(**settings), training_view(**settings | second)
    return lambda image, seed: (first_view(image, seed), second_view(image, tf.stack([~seed[0], seed[1]])))


# No Python control flow here depends on a tensor, and AutoGraph cannot read two lambdas that share a line.
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

    seed: int [2], (seed of the run, position in the stream); equal seeds give equal views.
    crop: "resized": a random box of area `scale` and aspect `ratio`, resized to `size` (RandomResizedCrop);
        "padded": resized to `size`, then a random window after `padding` zeros on each side; "none": resized only.
    scale: smallest and largest area of the box, shares of the image's area. ratio: smallest and largest width / height.
    flip: whether to mirror left and right with probability 1/2. randaugment: None for none.
    erasing: probability of one box of noise. resize: "fast" or "exact", see `resize_to`.
    Raises ValueError for another crop or resize.
    """
    layers = randaugment.layers if randaugment else 0
    # One call of the generator draws all choices. Each part is drawn even if it is not used, because otherwise a change
    # of one setting would change the random choices of all others.
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
        image = tf.cond(erasing_draw[0] < erasing, lambda: _erase_random_box(image, box_draws, seed), lambda: image)
    return tf.ensure_shape(image, [size, size, 3])


@tf.autograph.experimental.do_not_convert
def evaluation_view(image: tf.Tensor, *, size: int, resize: int) -> tf.Tensor:
    """Short side to `resize`, aspect kept, then the central `size`: uint8 [H, W, 3] -> uint8 [size, size, 3].

    size: side of the view, pixels. resize: short side before the crop, pixels; 0: the whole image is resized to
    (size, size), without a crop. Resizing is bicubic, antialiased where it shrinks, as Pillow's.
    Only the pixels of the crop are computed, so a very long image costs no more than a square one.
    Raises ValueError if 0 < resize < size.
    Source: torchvision Resize (long side rounded down), CenterCrop (offset rounded to even).
    """
    if 0 < resize < size:
        reason = f"the evaluation view resizes the short side to {resize}, too small for a crop of {size}"
        raise ValueError(f"{reason}: choose at least {size}, or 0 for no crop")
    if not resize:
        return resize_to(image, size, mode="exact")
    resized = _resized_shape(image, resize)
    return _window(image, resized, tf.round(tf.cast(resized - size, tf.float64) / 2), size=size)


def five_crops(image: tf.Tensor, *, size: int, resize: int) -> tf.Tensor:
    """Short side to `resize`, aspect kept, then the four corners and the centre: uint8 [H, W, 3] -> [5, size, size, 3].

    size, resize: as in `evaluation_view`. Raises ValueError if resize < size.
    Source: torchvision Resize, FiveCrop.
    """
    if resize < size:
        raise ValueError(f"five crops of {size} pixels need a short side of at least {size}, and it is {resize}.")
    resized = _resized_shape(image, resize)
    bottom, right = tf.unstack(tf.cast(resized - size, tf.float64))
    zero = tf.zeros([], tf.float64)
    corners = [
        (zero, zero),
        (zero, right),
        (bottom, zero),
        (bottom, right),
        (tf.round(bottom / 2), tf.round(right / 2)),
    ]
    return tf.stack([_window(image, resized, tf.stack(corner), size=size) for corner in corners])


def _resized_shape(image: tf.Tensor, resize: int) -> tf.Tensor:
    """(height, width) with a short side of `resize`, int64: float32 does not count the pixels of a long side."""
    shape = tf.shape(image, out_type=tf.int64)[:2]
    return resize * shape // tf.reduce_min(shape)


def _window(image: tf.Tensor, resized: tf.Tensor, offset: tf.Tensor, *, size: int) -> tf.Tensor:
    """The pixels [offset, offset + size) of the image in the size `resized`, uint8 [size, size, 3].

    resized, offset: [2], vertical and horizontal, int64 and float64.
    """
    shape = tf.shape(image, out_type=tf.int64)[:2]
    scale = tf.cast(resized, tf.float64) / tf.cast(shape, tf.float64)
    # Only the pixels that the crop depends on: the op needs 4 bytes for each column of its input and row of the result.
    reach = 2 / tf.minimum(scale, 1) + 1  # of the kernel, in pixels of the image, and one for rounding
    start = tf.maximum(tf.cast(tf.floor((offset + 0.5) / scale - reach), tf.int64), 0)
    end = tf.minimum(tf.cast(tf.math.ceil((offset + size - 0.5) / scale + reach), tf.int64), shape)
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=image[None, start[0] : end[0], start[1] : end[1]],
        size=[size, size],
        scale=tf.cast(scale, tf.float32),
        translation=tf.cast(tf.cast(start, tf.float64) * scale - offset, tf.float32),
        kernel_type="keyscubic",
        antialias=True,
    )
    return tf.ensure_shape(to_uint8(tf.round(resampled[0])), [size, size, 3])


def crop_box(
    height: tf.Tensor, width: tf.Tensor, draws: tf.Tensor, *, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the first of ten boxes that lies inside, else of the central one of nearest aspect.

    area ~ U(scale) H W, log aspect ~ U(log ratio). draws: float [22], uniform in 0..1.
    Source: torchvision RandomResizedCrop.
    """
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    heights, widths = _box_sides(rows * columns, 1 / ratio[1], 1 / ratio[0], scale, draws)
    inside = (heights > 0) & (widths > 0) & (heights <= rows) & (widths <= columns)
    central = tf.clip_by_value(columns / rows, ratio[0], ratio[1])
    fallback_height = tf.clip_by_value(tf.round(columns / central), 1, rows)
    fallback_width = tf.clip_by_value(tf.round(rows * central), 1, columns)
    first = tf.argmax(inside)  # the first True, 0 if there is none
    any_inside = tf.reduce_any(inside)
    box_height = tf.where(any_inside, heights[first], fallback_height)
    box_width = tf.where(any_inside, widths[first], fallback_width)
    # The central box has half of the free space on each side, any other box a random share of it.
    top = tf.where(any_inside, draws[-2] * (rows - box_height + 1), (rows - box_height) / 2)
    left = tf.where(any_inside, draws[-1] * (columns - box_width + 1), (columns - box_width) / 2)
    return tuple(tf.cast(value, tf.int32) for value in (top, left, box_height, box_width))


def erasing_box(size: int, draws: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the first of ten boxes smaller than the image; height = width = 0 if none is.

    area ~ U(.02, 1/3) size^2, log aspect ~ U(log .3, log 1/.3). size: side of the square image, pixels.
    draws: float [22], uniform in 0..1. Source: timm RandomErasing.
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
    """Rounded float heights and widths [10] of boxes.

    Their area ~ U(scale) `area`, their log(height / width) ~ U(log low, log high).
    """
    areas = area * (scale[0] + (scale[1] - scale[0]) * draws[:_TRIES])
    aspect = tf.exp(math.log(low) + (math.log(high) - math.log(low)) * draws[_TRIES : 2 * _TRIES])
    return tf.round(tf.sqrt(areas * aspect)), tf.round(tf.sqrt(areas / aspect))


@graphs.one_node
def _erase_random_box(image: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The square image with one random box erased. draws: see `erasing_box`; the noise gets a seed of its own."""
    box = erasing_box(image.shape[0], draws)
    return erase(image, box, tf.random.experimental.stateless_fold_in(seed, 1, alg="philox"))


def erase(image: tf.Tensor, box: tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """The image with noise in a box: MEAN + STD N(0, 1) per pixel and channel, clipped to 0..255.

    box: top, left, height, width, pixels. seed: int [2].
    """
    top, left, height, width = box
    noise = tf.random.stateless_normal([height, 3 * width], seed, alg="philox")
    noise = to_uint8(tf.round(tf.tile(MEAN, [width]) + tf.tile(STD, [width]) * noise))  # broadcasting [3] is slow
    noise = tf.reshape(noise, [height, width, 3])
    rows = image[top : top + height]
    rows = tf.concat([rows[:, :left], noise, rows[:, left + width :]], axis=1)
    return tf.ensure_shape(tf.concat([image[:top], rows, image[top + height :]], axis=0), image.shape)


def resize_to(image: tf.Tensor, size: int, *, mode: str) -> tf.Tensor:
    """uint8 [H, W, 3] -> uint8 [size, size, 3], bicubic; the aspect is not kept.

    mode: "exact": antialiased, within one level of Pillow. "fast", about twice as fast: the mean over areas where both
    sides shrink, plain bicubic elsewhere (equal to "exact" when enlarging; antialiased if one side shrinks much).
    Raises ValueError for another mode.
    """
    if mode not in ("fast", "exact"):
        raise ValueError(f"resize is {mode!r}: choose 'fast' or 'exact'")
    if image.shape[0] == image.shape[1] == size:
        return image
    to_size = partial(tf.image.resize, image, [size, size])
    exact = partial(_resize_exact, image, size)
    if mode == "exact":
        resized = exact()
    else:
        sides = tf.shape(image)[:2]
        both_shrink, one_shrinks_much = tf.reduce_min(sides) > size, tf.reduce_max(sides) > 3 * size // 2
        choices = [(both_shrink, partial(to_size, "area")), (one_shrinks_much, exact)]
        resized = tf.case(choices, default=partial(to_size, "bicubic"))
    return to_uint8(tf.round(resized))


def _resize_exact(image: tf.Tensor, size: int) -> tf.Tensor:
    """Antialiased bicubic: uint8 [H, W, 3] -> float32 [size, size, 3].

    The op shrinks the rows of an image first, and keeps [size, W] pixels of 12 bytes. For an image of 5 x 65,535 pixels
    these are 180 MB, but only 13 KB if the image lies on its side.
    """
    to_size = partial(tf.image.resize, size=[size, size], method="bicubic", antialias=True)
    sides = tf.shape(image)
    turned = [1, 0, 2]
    return tf.cond(
        sides[1] > _WIDE * sides[0],
        lambda: tf.transpose(to_size(tf.transpose(image, turned)), turned),
        lambda: to_size(image),
    )
