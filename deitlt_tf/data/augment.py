"""One image: the training view (crop, flip, RandAugment, erasing) and the evaluation view.

Everything is uint8, 0..255, [H, W, 3], and a pure function of its arguments: random choices come from `seed` through
stateless generators, so a view can be made again from its number. Eagerly and inside `tf.data` the result is the same.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import tensorflow as tf

from deitlt_tf import graphs

MEAN = (123.675, 116.28, 103.53)  # ImageNet's, in pixels: 255 * (.485, .456, .406)
STD = (58.395, 57.12, 57.375)  # 255 * (.229, .224, .225)
VERSION = 2  # raised when a view of the same seed and settings changes in any pixel: a teacher's kept labels are of it
_TRIES = 10  # of a random box, as in torchvision and timm


class RandAugment(NamedTuple):
    """`layers` of the 15 `OPERATIONS`, drawn with replacement, each applied with `probability` at N(magnitude, std).

    The defaults are timm's `rand-m9-mstd0.5-inc1`. Magnitudes are clipped to 0..10.
    Source: Cubuk et al. 2019, arXiv 1909.13719; timm data/auto_augment.py.
    """

    layers: int = 2
    magnitude: float = 9.0
    std: float = 0.5
    probability: float = 0.5
    fill: tuple[int, int, int] = (124, 116, 104)


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
    return tf.ensure_shape(_to_uint8(tf.round(resampled[0])), [size, size, 3])


# ---- boxes ----


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
    noise = _to_uint8(tf.round(tf.tile(MEAN, [width]) + tf.tile(STD, [width]) * noise))  # broadcasting [3] is slow
    noise = tf.reshape(noise, [height, width, 3])
    rows = image[top : top + height]
    rows = tf.concat([rows[:, :left], noise, rows[:, left + width :]], axis=1)
    return tf.ensure_shape(tf.concat([image[:top], rows, image[top + height :]], axis=0), image.shape)


# ---- resizing ----


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
    return _to_uint8(tf.round(resized))


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
    """Clipped to 0..255; fractions are cut off, as Pillow does in its image operations."""
    return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)


# ---- RandAugment ----


def apply_randaugment(image: tf.Tensor, draws: tf.Tensor, *, settings: RandAugment) -> tf.Tensor:
    """`settings.layers` drawn operations one after the other. draws: uniform float [4 * layers]."""
    for layer in tf.split(draws, settings.layers):
        image = _apply_drawn(image, layer, settings)
    return image


def _apply_drawn(image: tf.Tensor, draws: tf.Tensor, settings: RandAugment) -> tf.Tensor:
    """One operation, chosen, perhaps skipped, scaled and directed by four draws."""
    choice, applied, level, side = tf.unstack(draws, num=4)
    nothing = len(OPERATIONS)
    index = tf.where(applied < settings.probability, tf.cast(choice * nothing, tf.int32), nothing)
    magnitude = tf.clip_by_value(settings.magnitude + settings.std * tf.math.ndtri(level), 0.0, 10.0)
    sign = tf.where(side < 0.5, -1.0, 1.0)
    branches = [partial(operation, image, magnitude, sign, settings.fill) for operation in _BRANCHES]
    return tf.switch_case(index, [*branches, lambda: image])


@graphs.compiled
def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """255 (x - min) / (max - min) per channel; a channel of one value stays."""
    pixels = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
    low, high = tf.reduce_min(pixels, axis=0), tf.reduce_max(pixels, axis=0)
    gain = tf.where(high > low, 255.0 / (high - low), 1.0)
    low = tf.where(high > low, low, 0.0)
    # the small addend: a float that falls short of 7 is not 6
    return _to_uint8(tf.cast(image, tf.float32) * gain + (1e-3 - low * gain))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """(step // 2 + #{pixels below x}) // step per channel, step = #{pixels below the maximum} // 255.

    A channel with step 0 stays.
    """
    return _looked_up(image, _equalizing_tables(image))


@graphs.compiled
def _equalizing_tables(image: tf.Tensor) -> tf.Tensor:
    """What `equalize` makes of 0..255 in each channel: uint8 [3, 256]."""
    channels = tf.unstack(tf.cast(tf.reshape(image, [-1, 3]), tf.int32), axis=1)
    counts = tf.stack([tf.math.unsorted_segment_sum(tf.ones_like(x), x, 256) for x in channels])
    below = tf.cumsum(counts, axis=1, exclusive=True)
    step = tf.reduce_max(tf.where(counts > 0, below, 0), axis=1, keepdims=True) // 255
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8)


@graphs.compiled  # apart from the tables: in one program they would be worked out again for each pixel
def _looked_up(image: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """tables[channel, x]: uint8 [3, 256]."""
    return tf.gather(tf.reshape(tables, [-1]), tf.cast(image, tf.int32) + tf.constant([0, 256, 512]))


def invert(image: tf.Tensor) -> tf.Tensor:
    """255 - x."""
    return tf.bitwise.invert(image)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the `bits` (int, 0..8) highest bits; none of them is black."""
    return tf.bitwise.bitwise_and(image, tf.cast(256 - tf.bitwise.left_shift(1, 8 - bits), tf.uint8))


@graphs.compiled
def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """255 - x where x >= threshold (int, 0..256)."""
    bright = tf.cast(image, tf.int16) >= tf.cast(threshold, tf.int16)
    return tf.bitwise.bitwise_xor(image, tf.cast(bright, tf.uint8) * 255)


@graphs.compiled
def solarize_add(image: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """x + amount (int, 0..128) where x < 128."""
    return image + tf.cast(image < 128, tf.uint8) * tf.cast(amount, tf.uint8)


@graphs.compiled
def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend of the grey image (factor 0) and the image (factor 1)."""
    return _blend(_grey(image), image, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend of the image's mean grey, rounded, (factor 0) and the image (factor 1)."""
    return _blend(tf.floor(tf.reduce_mean(_grey(image)) + 0.5), image, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """factor x."""
    return _to_uint8(tf.cast(image, tf.float32) * factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend of the smoothed image (factor 0) and the image (factor 1); the outermost pixels stay.

    Smoothing is the 3x3 mean in which the centre counts 5 of 13.
    """
    rows = tf.concat([image[1:-1, :1], _sharpened(image, factor), image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], rows, image[-1:]], axis=0)


@graphs.compiled
def _sharpened(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`sharpness` without the outermost pixels: uint8 [H - 2, W - 2, 3]."""
    pixels = tf.cast(image, tf.int32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    inner = pixels[1:-1, 1:-1]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner
    return _blend(tf.cast((2 * total + 13) // 26, tf.float32), inner, factor)  # rounded


def rotate(image: tf.Tensor, degrees: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """Rotation about the centre, counter-clockwise."""
    height, width, _ = image.shape
    cos, sin = tf.cos(degrees * math.pi / 180), tf.sin(degrees * math.pi / 180)
    x, y = width / 2, height / 2
    matrix = tf.stack([cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y])
    return _affine(image, matrix, fill)


def shear_x(image: tf.Tensor, factor: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """out[y, x] = in[y, x + factor y]."""
    return _affine(image, tf.stack([1.0, factor, 0.0, 0.0, 1.0, 0.0]), fill)


def shear_y(image: tf.Tensor, factor: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """out[y, x] = in[y + factor x, x]."""
    return _affine(image, tf.stack([1.0, 0.0, 0.0, factor, 1.0, 0.0]), fill)


def translate_x(image: tf.Tensor, share: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """out[y, x] = in[y, x + share W], |share| <= 1."""
    return _shift(image, share, 1, fill)


def translate_y(image: tf.Tensor, share: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """out[y, x] = in[y + share H, x], |share| <= 1."""
    return _shift(image, share, 0, fill)


def _enhancement(magnitude: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
    """1 +- .9 magnitude / 10, at least .1: 1 changes nothing."""
    return tf.maximum(0.1, 1.0 + sign * (magnitude / 10 * 0.9))


def _whole(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.int32)


# name -> (image, magnitude 0..10, sign +-1, fill) -> image, in timm's order (those of "inc1": more is stronger)
OPERATIONS: Mapping[str, Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tuple[int, int, int]], tf.Tensor]] = {
    "AutoContrast": lambda image, m, sign, fill: autocontrast(image),
    "Equalize": lambda image, m, sign, fill: equalize(image),
    "Invert": lambda image, m, sign, fill: invert(image),
    "Rotate": lambda image, m, sign, fill: rotate(image, sign * m * 3, fill),
    "PosterizeIncreasing": lambda image, m, sign, fill: posterize(image, 4 - _whole(m * 0.4)),
    "SolarizeIncreasing": lambda image, m, sign, fill: solarize(image, 256 - _whole(m * 25.6)),
    "SolarizeAdd": lambda image, m, sign, fill: solarize_add(image, _whole(m * 11)),
    "ColorIncreasing": lambda image, m, sign, fill: color(image, _enhancement(m, sign)),
    "ContrastIncreasing": lambda image, m, sign, fill: contrast(image, _enhancement(m, sign)),
    "BrightnessIncreasing": lambda image, m, sign, fill: brightness(image, _enhancement(m, sign)),
    "SharpnessIncreasing": lambda image, m, sign, fill: sharpness(image, _enhancement(m, sign)),
    "ShearX": lambda image, m, sign, fill: shear_x(image, sign * m * 0.03, fill),
    "ShearY": lambda image, m, sign, fill: shear_y(image, sign * m * 0.03, fill),
    "TranslateXRel": lambda image, m, sign, fill: translate_x(image, sign * m * 0.045, fill),
    "TranslateYRel": lambda image, m, sign, fill: translate_y(image, sign * m * 0.045, fill),
}

_BRANCHES = [graphs.one_node(operation) for operation in OPERATIONS.values()]


def _grey(image: tf.Tensor) -> tf.Tensor:
    """ITU-R 601-2 luma as Pillow rounds it, float [H, W, 1]; every sum stays below 2^24, so float32 is exact."""
    red, green, blue = tf.split(tf.cast(image, tf.float32), 3, axis=-1)
    return tf.floor((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536)


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """degenerate + factor (image - degenerate): float and uint8 -> uint8."""
    return _to_uint8(degenerate + factor * (tf.cast(image, tf.float32) - degenerate))


@graphs.compiled  # less than a quarter of what ImageProjectiveTransformV3 takes
def _affine(image: tf.Tensor, matrix: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """out(x, y) = in(a x + b y + c, d x + e y + f), bilinear; `fill` where that point lies outside the image.

    matrix: float [6], a to f, between pixel centres at .5, 1.5, ... as in Pillow. Beyond the outermost centres the
    border is repeated.
    """
    a, b, c, d, e, f = tf.unstack(matrix)
    height, width, _ = image.shape
    x, y = tf.range(width, dtype=tf.float32) + 0.5, tf.range(height, dtype=tf.float32)[:, None] + 0.5
    x, y = a * x + b * y + c, d * x + e * y + f
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = tf.clip_by_value(x - 0.5, 0.0, width - 1.0), tf.clip_by_value(y - 0.5, 0.0, height - 1.0)
    left, top = tf.cast(x, tf.int32), tf.cast(y, tf.int32)
    right, bottom = tf.minimum(left + 1, width - 1), tf.minimum(top + 1, height - 1)
    x, y = (x - tf.cast(left, tf.float32))[..., None], (y - tf.cast(top, tf.float32))[..., None]
    numbers = tf.reshape(image, [-1])  # one by one: by threes a gather takes twice as long

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.gather(numbers, 3 * (row * width + column)[..., None] + tf.range(3)), tf.float32)

    upper = (1 - x) * at(top, left) + x * at(top, right)
    lower = (1 - x) * at(bottom, left) + x * at(bottom, right)
    warped = tf.cast((1 - y) * upper + y * lower, tf.uint8)
    return tf.where(inside[..., None], warped, tf.constant(fill, tf.uint8))


def _shift(image: tf.Tensor, share: tf.Tensor, axis: int, fill: tuple[int, int, int]) -> tf.Tensor:
    """out[i] = in[i + share n] along `axis` of n pixels, bilinear; `fill` where that point lies outside the image."""
    shape = image.shape.as_list()
    pixels = share * shape[axis]
    whole = tf.round(pixels)
    rest = pixels - whole  # -.5..+.5: a pixel is mixed with its left or its right neighbour
    first, last = tf.split(image, [1, shape[axis] - 2, 1], axis=axis)[::2]

    def window(extended: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return tf.slice(extended, [start, 0, 0] if axis == 0 else [0, start, 0], shape)

    neighbour = window(tf.concat([first, image, last], axis), tf.where(rest < 0, 0, 2))
    mixed = _blend(tf.cast(image, tf.float32), neighbour, tf.abs(rest))
    colour = tf.broadcast_to(tf.constant(fill, tf.uint8), shape)
    return window(tf.concat([colour, mixed, colour], axis), shape[axis] + tf.cast(whole, tf.int32))
