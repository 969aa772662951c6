"""Encoded bytes -> one RGB image, as graph operations; and the names of the images that cannot be decoded."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from multiprocessing.pool import ThreadPool

import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import graphs
from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.data.dataset import names as names_of

_UNKNOWN, _JPEG, _PNG, _WEBP, _BMP, _PALETTE_BMP = range(6)
_HEADER_BYTES = 32  # all that is read of any header


# nothing here is Python control flow, and AutoGraph cannot read lambdas that share a line
@tf.autograph.experimental.do_not_convert
def decode(data: tf.Tensor, *, name: str | tf.Tensor, max_pixels: int) -> tf.Tensor:
    """JPEG, PNG, WebP or BMP bytes -> uint8 [H, W, 3]; the content decides the format, never the file's name.

    Grey is repeated, alpha is dropped, 16 bits keep the high byte, CMYK is converted, EXIF rotation is ignored: all as
    `PIL.Image.convert("RGB")` does (but for 16-bit grey, which Pillow clips). `data`: string scalar.
    The pixel count is read from the header and checked before any pixel is decoded.

    Raises tf.errors.InvalidArgumentError: other formats (names `name`), more than `max_pixels` pixels (names `name` and
    the flag), truncated or damaged data (TensorFlow's own message, without a name: ask `bad_images`).
    """
    # Most images are JPEG: all that the others need lies apart.
    is_jpeg = tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"
    kind = tf.cond(is_jpeg, lambda: _JPEG, lambda: _other_kind(data))
    readable = _check(kind != _UNKNOWN, name, ": not a JPEG, PNG, BMP or (not animated) WebP image")
    with tf.control_dependencies([readable]):
        shape = tf.cond(
            is_jpeg,
            lambda: tf.image.extract_jpeg_shape(data, output_type=tf.int64)[:2],
            lambda: _other_shape(data, kind),
        )
        height, width = tf.unstack(shape, num=2)
    # float64: two 32-bit sides can overflow the product of int64
    pixels = tf.cast(height, tf.float64) * tf.cast(width, tf.float64)
    limit = tf.cast(max_pixels, tf.int64)
    size = [tf.strings.as_string(n) for n in (width, height, limit)]
    complaint = [": ", size[0], " x ", size[1], " pixels are more than the limit of ", size[2], " (max_pixels)"]
    small = _check(pixels <= tf.cast(limit, tf.float64), name, *complaint)
    with tf.control_dependencies([small]):
        data = tf.identity(data)

    def jpeg() -> tf.Tensor:  # bit for bit Pillow's; the default is 2 % faster and a level off
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    image = tf.cond(is_jpeg, jpeg, lambda: _decode_other(data, kind))
    rgb = tf.cond(  # 1 or 2 channels are grey without or with alpha
        tf.shape(image)[-1] < 3, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3]
    )
    return tf.ensure_shape(rgb, [None, None, 3])


def read(path: str | tf.Tensor, *, max_pixels: int) -> tf.Tensor:
    """The image file at `path` -> uint8 [H, W, 3]. Raises what `decode` raises, and tf.errors.NotFoundError."""
    return decode(tf.io.read_file(path), name=path, max_pixels=max_pixels)


def bad_images(
    images: Iterable[str | bytes], names: Sequence[str], *, max_pixels: int, progress: bool = True
) -> list[tuple[int, str]]:
    """Tries every image; the (index, reason in one line) of those that cannot be read.

    images: file paths (str) or encoded images (bytes), `names[i]` is what the reason calls images[i].
    """
    # compiled once: eagerly, the small operations would hold the GIL longer than the decoding releases it
    decode_one = tf.function(lambda data: tf.shape(decode(data, name="", max_pixels=max_pixels)))
    decode_one = decode_one.get_concrete_function(tf.TensorSpec([], tf.string))

    def reason(image: str | bytes) -> str | None:
        try:
            # fsencode: a path need not be valid UTF-8
            decode_one(tf.io.read_file(os.fsencode(image)) if isinstance(image, str) else tf.constant(image))
        except tf.errors.OpError as error:
            return _plain(error.message)
        return None

    found = []
    images = enumerate(images)
    # TensorFlow releases the GIL while it decodes. In blocks, because `imap` reads its whole input ahead.
    with ThreadPool() as pool, tqdm(total=len(names), desc="checking images", disable=not progress) as bar:
        while block := list(islice(images, 1024)):
            for (index, _), why in zip(block, pool.imap(reason, [image for _, image in block]), strict=True):
                found += [(index, f"{names[index]}: {why}")] if why else []
                bar.update()
    return found


def _header(data: tf.Tensor) -> tf.Tensor:
    """The first bytes, cut or filled up with zeros, int64 [_HEADER_BYTES]."""
    header = tf.io.decode_raw(data, tf.uint8, fixed_length=_HEADER_BYTES)
    return tf.cast(tf.ensure_shape(header, [_HEADER_BYTES]), tf.int64)


@graphs.one_node
def _other_kind(data: tf.Tensor) -> tf.Tensor:
    """int32 scalar: which format but JPEG the first bytes announce."""
    header = _header(data)

    def starts(signature: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(header[at : at + len(signature)] == list(signature))

    # TensorFlow 2.21 writes past its buffer when it decodes an animated WebP: never let it
    animated = starts(b"VP8X", at=12) & (header[20] & 2 != 0)
    kinds = {
        _PNG: starts(b"\x89PNG\r\n\x1a\n"),
        _WEBP: starts(b"RIFF") & starts(b"WEBP", at=8) & ~animated,
        _BMP: starts(b"BM") & (header[28] != 8),
        _PALETTE_BMP: starts(b"BM") & (header[28] == 8),
    }
    return sum(kind * tf.cast(found, tf.int32) for kind, found in kinds.items())  # at most one is; _UNKNOWN is 0


@graphs.one_node
def _other_shape(data: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """int64 [2], height and width as the header of an image that is no JPEG states them, no pixel decoded."""
    header = _header(data)

    def png() -> tf.Tensor:  # IHDR: width, height, big-endian
        return tf.stack([_integer(header[23:19:-1]), _integer(header[19:15:-1])])

    def webp() -> tf.Tensor:  # the first chunk is VP8 (lossy), VP8L (lossless) or VP8X (canvas of either)
        bits = _integer(header[21:25])
        lossless = [bits // 2**14 % 2**14 + 1, bits % 2**14 + 1]
        canvas = [_integer(header[27:30]) + 1, _integer(header[24:27]) + 1]
        lossy = [_integer(header[28:30]) % 2**14, _integer(header[26:28]) % 2**14]
        return tf.where(header[15] == ord("L"), lossless, tf.where(header[15] == ord("X"), canvas, lossy))

    def bmp() -> tf.Tensor:  # a negative height means rows from top to bottom
        unsigned = tf.stack([_integer(header[22:26]), _integer(header[18:22])])
        return tf.minimum(unsigned, 2**32 - unsigned)

    return tf.switch_case(kind - _PNG, [png, webp, bmp, bmp])


@graphs.one_node
def _decode_other(data: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 1 to 4] of what is no JPEG."""

    def ordinary() -> tf.Tensor:  # channels=0, because channels=3 fails on a WebP image with alpha
        return tf.io.decode_image(data, channels=0, expand_animations=False)

    return tf.cond(kind == _PALETTE_BMP, lambda: _decode_palette_bmp(data, _header(data)), ordinary)


def _decode_palette_bmp(data: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """8-bit BMP -> uint8 [H, W, 3] through its table of colours (TensorFlow alone returns the indices as if grey).

    The table of (B, G, R, 0) lies between the headers (14 bytes and the length at 14) and the pixels (offset at 10).
    """
    start, end = 14 + _integer(header[14:18]), _integer(header[10:14])
    # not tf.strings.substr: its error repeats the whole file, bytes that Python then fails to decode
    colours = tf.reshape(tf.io.decode_raw(data, tf.uint8)[start:end], [-1, 4])[:, 2::-1]
    return tf.gather(colours, tf.cast(tf.io.decode_bmp(data)[..., 0], tf.int32))


def _integer(digits: tf.Tensor) -> tf.Tensor:
    """sum_i digits[i] 256^i: little-endian bytes, int64 [n] -> int64 scalar."""
    return tf.reduce_sum(digits * [256**i for i in range(digits.shape[0])])


def _check(condition: tf.Tensor, *message: str | tf.Tensor) -> tf.Operation | None:
    """Fails with exactly `message` (joined) unless `condition`."""
    return tf.debugging.Assert(condition, [tf.strings.join(message)])


def _plain(message: str) -> str:
    """TensorFlow's error text without node names, the place in Python and the word 'assertion'."""
    message = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", message)
    lines = [line.strip() for line in message.splitlines() if not line.startswith(("Graph ", "Detected ", "  File "))]
    text = " ".join(filter(None, lines))
    return re.sub(r"^assertion failed: \[(?:: )?(.*)\]$", r"\1", text)


def bad_images_of(source: Source, *, max_pixels: int) -> list[tuple[int, str]]:
    if source.kind == "pixels":
        return []
    return bad_images(source.images, names_of(source), max_pixels=max_pixels)


def naming_bad_images(action: Callable, splits: Splits, *, max_pixels: int):
    """action(), where a failure to decode an image is told by the image's name. Looks for it only after a failure."""
    try:
        return action()
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        print("an image could not be read; looking for all that cannot")
        for source in filter(None, (splits.train, splits.val, splits.test)):
            bad = bad_images_of(source, max_pixels=max_pixels)
            if bad:
                _, reason = bad[0]
                more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
                raise ValueError(
                    f"{reason}{more}. Repair or remove it, or leave such images out with `skip_bad_images`."
                ) from error
        raise
