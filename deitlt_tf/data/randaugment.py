"""RandAugment: the 15 operations of timm, each equal to Pillow's, and the random choice among them for one image.

Images are uint8, 0..255, [H, W, 3]; x is the value of a pixel in one channel.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from deitlt_tf import graphs


class RandAugment(NamedTuple):
    """`layers` of the 15 `OPERATIONS`, drawn with replacement, each applied with `probability` at N(magnitude, std).

    The defaults are timm's `rand-m9-mstd0.5-inc1`. Magnitudes are clipped to 0..10. fill: colour where a moved image
    leaves no pixels, 0..255.
    Source: Cubuk et al. 2019, arXiv 1909.13719; timm data/auto_augment.py.
    """

    layers: int = 2
    magnitude: float = 9.0
    std: float = 0.5
    probability: float = 0.5
    fill: tuple[int, int, int] = (124, 116, 104)


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    """The image clipped to 0..255; fractions are cut off, as Pillow does in its image operations."""
    return tf.cast(tf.clip_by_value(image, 0.0, 255.0), tf.uint8)


def apply_randaugment(image: tf.Tensor, draws: tf.Tensor, *, settings: RandAugment) -> tf.Tensor:
    """`settings.layers` random operations, one after the other. draws: float [4 * layers], uniform in 0..1."""
    for layer in tf.split(draws, settings.layers):
        image = _apply_random_operation(image, layer, settings)
    return image


def _apply_random_operation(image: tf.Tensor, draws: tf.Tensor, settings: RandAugment) -> tf.Tensor:
    """One operation. draws: float [4], they decide which operation, whether it is applied, its magnitude, its sign."""
    choice, skip, level, side = tf.unstack(draws, num=4)
    identity = len(OPERATIONS)  # number of the branch behind those of the operations
    index = tf.where(skip < settings.probability, tf.cast(choice * identity, tf.int32), identity)
    magnitude = tf.clip_by_value(settings.magnitude + settings.std * tf.math.ndtri(level), 0.0, 10.0)
    sign = tf.where(side < 0.5, -1.0, 1.0)
    branches = [partial(operation, image, magnitude, sign, settings.fill) for operation in _BRANCHES]
    return tf.switch_case(index, [*branches, lambda: image])


@graphs.compiled
def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """255 (x - min) / (max - min) per channel; a channel of one value does not change."""
    pixels = tf.cast(tf.reshape(image, [-1, 3]), tf.float32)
    low, high = tf.reduce_min(pixels, axis=0), tf.reduce_max(pixels, axis=0)
    gain = tf.where(high > low, 255.0 / (high - low), 1.0)
    low = tf.where(high > low, low, 0.0)
    # The small addend keeps a float just below 7 from becoming 6.
    return to_uint8(tf.cast(image, tf.float32) * gain + (1e-3 - low * gain))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """(step // 2 + #{pixels below x}) // step per channel, step = #{pixels below the maximum} // 255.

    A channel with step 0 does not change.
    """
    return _look_up(image, _equalizing_tables(image))


@graphs.compiled
def _equalizing_tables(image: tf.Tensor) -> tf.Tensor:
    """The values that `equalize` gives to 0..255 in each channel: uint8 [3, 256]."""
    channels = tf.unstack(tf.cast(tf.reshape(image, [-1, 3]), tf.int32), axis=1)
    counts = tf.stack([tf.math.unsorted_segment_sum(tf.ones_like(x), x, 256) for x in channels])
    below = tf.cumsum(counts, axis=1, exclusive=True)
    step = tf.reduce_max(tf.where(counts > 0, below, 0), axis=1, keepdims=True) // 255
    table = tf.minimum((step // 2 + below) // tf.maximum(step, 1), 255)
    return tf.cast(tf.where(step > 0, table, tf.range(256)), tf.uint8)


# A program of its own, because in one program with the tables XLA would compute them again for each pixel.
@graphs.compiled
def _look_up(image: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """tables[channel, x]. tables: uint8 [3, 256]."""
    return tf.gather(tf.reshape(tables, [-1]), tf.cast(image, tf.int32) + tf.constant([0, 256, 512]))


def invert(image: tf.Tensor) -> tf.Tensor:
    """255 - x."""
    return tf.bitwise.invert(image)


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """x with only its highest bits. bits: int scalar, 0..8; 0 gives a black image."""
    return tf.bitwise.bitwise_and(image, tf.cast(256 - tf.bitwise.left_shift(1, 8 - bits), tf.uint8))


@graphs.compiled
def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """255 - x where x >= threshold. threshold: int scalar, 0..256."""
    bright = tf.cast(image, tf.int16) >= tf.cast(threshold, tf.int16)
    return tf.bitwise.bitwise_xor(image, tf.cast(bright, tf.uint8) * 255)


@graphs.compiled
def solarize_add(image: tf.Tensor, amount: tf.Tensor) -> tf.Tensor:
    """x + amount where x < 128. amount: int scalar, 0..128."""
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
    return to_uint8(tf.cast(image, tf.float32) * factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend of the smoothed image (factor 0) and the image (factor 1); the outermost pixels do not change.

    Smoothing is the weighted 3x3 mean: the centre has weight 5/13, each neighbour 1/13.
    """
    rows = tf.concat([image[1:-1, :1], _sharpen_interior(image, factor), image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], rows, image[-1:]], axis=0)


@graphs.compiled
def _sharpen_interior(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`sharpness` without the outermost pixels: uint8 [H - 2, W - 2, 3]."""
    pixels = tf.cast(image, tf.int32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    inner = pixels[1:-1, 1:-1]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner
    return _blend(tf.cast((2 * total + 13) // 26, tf.float32), inner, factor)  # rounded


def rotate(image: tf.Tensor, degrees: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """Rotation about the centre, counter-clockwise. degrees: float scalar. fill: colour outside the image."""
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
    """The factor of a blend: 1 +- .9 magnitude / 10, at least .1; a factor of 1 changes nothing."""
    return tf.maximum(0.1, 1.0 + sign * (magnitude / 10 * 0.9))


def _whole(value: tf.Tensor) -> tf.Tensor:
    return tf.cast(value, tf.int32)


# name -> function (image, magnitude 0..10, sign +-1, fill) -> image, in timm's order. These are the operations of
# timm's "inc1", in which a larger magnitude is always stronger.
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
    return to_uint8(degenerate + factor * (tf.cast(image, tf.float32) - degenerate))


@graphs.compiled  # takes less than a quarter of the time of ImageProjectiveTransformV3
def _affine(image: tf.Tensor, matrix: tf.Tensor, fill: tuple[int, int, int]) -> tf.Tensor:
    """out(x, y) = in(a x + b y + c, d x + e y + f), bilinear; `fill` where that point lies outside the image.

    matrix: float [6], a to f. Centres of pixels are at .5, 1.5, ... as in Pillow. Between the outermost centres and
    the edge of the image the outermost pixel is repeated.
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
    numbers = tf.reshape(image, [-1])  # single numbers, because a gather of [..., 3] takes twice as long

    def at(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.gather(numbers, 3 * (row * width + column)[..., None] + tf.range(3)), tf.float32)

    upper = (1 - x) * at(top, left) + x * at(top, right)
    lower = (1 - x) * at(bottom, left) + x * at(bottom, right)
    warped = tf.cast((1 - y) * upper + y * lower, tf.uint8)
    return tf.where(inside[..., None], warped, tf.constant(fill, tf.uint8))


def _shift(image: tf.Tensor, share: tf.Tensor, axis: int, fill: tuple[int, int, int]) -> tf.Tensor:
    """out[i] = in[i + share n] along `axis` of n pixels, bilinear; `fill` where that point lies outside the image.

    share: float scalar, -1..1.
    """
    shape = image.shape.as_list()
    pixels = share * shape[axis]
    whole = tf.round(pixels)
    rest = pixels - whole  # -.5..+.5: below 0 a pixel is mixed with the one before it, else with the one after it
    first, last = tf.split(image, [1, shape[axis] - 2, 1], axis=axis)[::2]

    def window(extended: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        return tf.slice(extended, [start, 0, 0] if axis == 0 else [0, start, 0], shape)

    neighbour = window(tf.concat([first, image, last], axis), tf.where(rest < 0, 0, 2))
    mixed = _blend(tf.cast(image, tf.float32), neighbour, tf.abs(rest))
    colour = tf.broadcast_to(tf.constant(fill, tf.uint8), shape)
    return window(tf.concat([colour, mixed, colour], axis), shape[axis] + tf.cast(whole, tf.int32))


def parse(text: str) -> RandAugment | None:
    """The settings in timm's notation, such as `rand-m9-mstd0.5-inc1`; None for "".

    m: magnitude. mstd: its standard deviation. n: operations per image. p: probability of each. inc1: required.
    Raises ValueError for any other text.
    """
    if not text:
        return None
    kind, *settings = text.split("-")
    names = {"m": "magnitude", "mstd": "std", "n": "layers", "p": "probability"}
    values: dict[str, Any] = {}
    for setting in settings:
        name = setting.rstrip("0123456789.")
        if setting == "inc1":
            continue
        if name not in names or name == setting:
            raise ValueError(f"randaugment={text}: {setting!r} is unknown; an example is rand-m9-mstd0.5-inc1.")
        values[names[name]] = (int if name == "n" else float)(setting.removeprefix(name))
    if kind != "rand" or "inc1" not in settings:
        raise ValueError(f"randaugment={text}: only `rand-...-inc1` is offered; an example is rand-m9-mstd0.5-inc1.")
    return RandAugment(**values)
