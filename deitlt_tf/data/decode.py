"""Encoded bytes -> one RGB image, as graph operations; and the names of the images that cannot be decoded."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from multiprocessing.pool import ThreadPool
from typing import TypeVar

import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import graphs
from deitlt_tf.data.dataset import Source, Splits, and_more, image_names
from deitlt_tf.data.progress import bar_of

MAX_SIDE = 65_535  # pixels, JPEG's own limit: beyond, small files ask for gigabytes, and float32 counts no pixels
_UNKNOWN, _JPEG, _PNG, _WEBP, _BMP, _PALETTE_BMP, _OTHER_BMP, _OS2_BMP, _PACKED_BMP = range(9)
_LAST_READABLE = _PALETTE_BMP
# Why an image of each kind cannot be read; it can be where this is empty.
_REASONS = [""] * 9
_REASONS[_UNKNOWN] = ": not a JPEG, PNG, BMP or (not animated) WebP image"
_REASONS[_OTHER_BMP] = ": a BMP image of other than 8, 24 or 32 bits a pixel, only these can be decoded"
_REASONS[_OS2_BMP] = ": a BMP image with the header of OS/2, which cannot be decoded"
_REASONS[_PACKED_BMP] = ": a compressed BMP image, which cannot be decoded"
_HEADER_BYTES = 34  # as many as the checks below read of any header
# What TensorFlow raises for a file that is damaged, missing, closed to this user, a folder, a link to itself, ...
_FILE_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)
Result = TypeVar("Result")


# ---- one image -------------------------------------------------------------------------------------------------------


# No Python control flow here depends on a tensor, and AutoGraph cannot read two lambdas that share a line.
@tf.autograph.experimental.do_not_convert
def decode(data: tf.Tensor, *, name: str | tf.Tensor, max_pixels: int) -> tf.Tensor:
    """JPEG, PNG, WebP or BMP bytes -> uint8 [H, W, 3]; the content decides the format, never the file's name.

    Grey is repeated, alpha is dropped, 16 bits keep the high byte, CMYK is converted, EXIF rotation is ignored: all as
    `PIL.Image.convert("RGB")` does (except 16-bit grey, which Pillow clips, and CMYK in a JPEG without Adobe's mark).
    The pixel count is read from the header and checked before any pixel is decoded.

    data: string scalar. name: how error messages call the image. max_pixels: largest height x width.
    Raises tf.errors.InvalidArgumentError for another format, for too many pixels or for a side above MAX_SIDE, with
    `name` in the message; for
    truncated or damaged data it has TensorFlow's own message, without a name (`bad_images` finds the image).
    """
    is_jpeg, kind, _, checked = _checked_header(data, name=name, max_pixels=max_pixels)
    with tf.control_dependencies([checked]):
        data = tf.identity(data)

    def jpeg() -> tf.Tensor:  # equal to Pillow's; the default method is 2 % faster and off by one level
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    image = tf.cond(is_jpeg, jpeg, lambda: _decode_other(data, kind))
    rgb = tf.cond(  # 1 or 2 channels are grey without or with alpha
        tf.shape(image)[-1] < 3, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3]
    )
    return tf.ensure_shape(rgb, [None, None, 3])


def _checked_header(
    data: tf.Tensor, *, name: str | tf.Tensor, max_pixels: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Operation | None]:
    """(is it a JPEG, its kind, height x width in float64, the operation that checks it); arguments as of `decode`."""
    # PNG, WebP and BMP are handled in functions of their own, so JPEG, the common case, does not pay for them.
    is_jpeg = tf.strings.substr(data, 0, 3) == b"\xff\xd8\xff"
    kind = tf.cond(is_jpeg, lambda: _JPEG, lambda: _other_kind(data))
    readable = check((kind != _UNKNOWN) & (kind <= _LAST_READABLE), name, tf.gather(_REASONS, kind))
    with tf.control_dependencies([readable]):
        shape = tf.cond(
            is_jpeg,
            lambda: tf.image.extract_jpeg_shape(data, output_type=tf.int64)[:2],
            lambda: _other_shape(data, kind),
        )
        height, width = tf.unstack(shape, num=2)
    # In float64, because the product of two 32-bit sides can overflow int64.
    pixels = tf.cast(height, tf.float64) * tf.cast(width, tf.float64)
    limit = tf.cast(max_pixels, tf.int64)
    size = [tf.strings.as_string(n) for n in (width, height, limit)]
    reason = [": ", size[0], " x ", size[1], " pixels are more than the limit of ", size[2], " (`max_pixels`)"]
    small = check(pixels <= tf.cast(limit, tf.float64), name, *reason)
    with tf.control_dependencies([small]):
        sides = [": ", size[0], " x ", size[1], f" pixels, a side of more than {MAX_SIDE} is not read"]
        short = check((height <= MAX_SIDE) & (width <= MAX_SIDE), name, *sides)
    return is_jpeg, kind, pixels, short


@tf.autograph.experimental.do_not_convert
def pixel_count(data: tf.Tensor, *, name: str | tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Height x width of an image from its header, float64 scalar; no pixel is decoded.

    Arguments and errors: as of `decode`, without those for damaged data.
    """
    *_, pixels, checked = _checked_header(data, name=name, max_pixels=max_pixels)
    with tf.control_dependencies([checked]):
        return tf.identity(pixels)


def read(path: str | tf.Tensor, *, max_pixels: int) -> tf.Tensor:
    """The image file at `path` -> uint8 [H, W, 3]. Raises what `decode` raises, and tf.errors.NotFoundError."""
    return decode(tf.io.read_file(path), name=path, max_pixels=max_pixels)


# ---- images that cannot be decoded -----------------------------------------------------------------------------------


def bad_images(
    images: Iterable[str | bytes], names: Sequence[str], *, max_pixels: int, progress: bool = True
) -> list[tuple[int, str]]:
    """(index, reason in one line) of each image that cannot be read, after trying to decode all images.

    images: file paths (str) or encoded images (bytes). names: how the reasons call them, one name per image.
    max_pixels: as in `decode`. progress: whether to show a bar.
    """
    # Traced once: the many small operations, done eagerly, would hold the GIL longer than the decoding releases it.
    decode_one = tf.function(lambda data: tf.shape(decode(data, name="", max_pixels=max_pixels)))
    decode_one = decode_one.get_concrete_function(tf.TensorSpec([], tf.string))

    def reason(image: str | bytes) -> str | None:
        try:
            # fsencode, because a path need not be valid UTF-8
            decode_one(tf.io.read_file(os.fsencode(image)) if isinstance(image, str) else tf.constant(image))
        except tf.errors.OpError as error:
            return _plain(error.message)
        return None

    bad = []
    numbered = enumerate(images)
    # In threads, because TensorFlow releases the GIL while it decodes; in blocks, because `imap` reads its input ahead.
    with ThreadPool() as pool, tqdm(total=len(names), **bar_of("checking images" if progress else None)) as bar:
        while block := list(islice(numbered, 1024)):
            for (index, _), why in zip(block, pool.imap(reason, [image for _, image in block]), strict=True):
                bad += [(index, f"{names[index]}: {why}")] if why else []
                bar.update()
    return bad


def bad_images_of(source: Source, *, max_pixels: int) -> list[tuple[int, str]]:
    """`bad_images` of a source; pixels are never bad."""
    if source.kind == "pixels":
        return []
    return bad_images(source.images, image_names(source), max_pixels=max_pixels)


def naming_bad_images(action: Callable[[], Result], splits: Splits, *, max_pixels: int) -> Result:
    """action(), whose failure to decode an image becomes a ValueError with the image's name and the reason.

    splits: where to look for the image, all images of it, and only after a failure. max_pixels: as in `decode`.
    A lack of memory becomes a ValueError, too, which says what to lower.
    """
    try:
        return action()
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        reason = _plain(getattr(error, "message", str(error)))[:200] or type(error).__name__
        raise ValueError(
            f"memory ran out ({reason}): lower `batch_size`, raise `accumulation`, "
            "or choose a smaller `model`, `teacher_model` or `image_size`; on the host, lower `decoded_mb`."
        ) from error
    except _FILE_ERRORS as error:
        print("an image could not be read; looking for all that cannot")
        for source in filter(None, (splits.train, splits.val, splits.test)):
            if bad := bad_images_of(source, max_pixels=max_pixels):
                _, reason = bad[0]
                raise ValueError(
                    f"{reason}{and_more(bad)}. Repair or remove it, or leave such images out with `skip_bad_images`."
                ) from error
        raise


# ---- formats ---------------------------------------------------------------------------------------------------------


def _header(data: tf.Tensor) -> tf.Tensor:
    """The first bytes, cut to or padded with zeros to _HEADER_BYTES: int64 [_HEADER_BYTES]."""
    header = tf.io.decode_raw(data, tf.uint8, fixed_length=_HEADER_BYTES)
    return tf.cast(tf.ensure_shape(header, [_HEADER_BYTES]), tf.int64)


@graphs.one_node
def _other_kind(data: tf.Tensor) -> tf.Tensor:
    """The kind of an image that is not JPEG, from its first bytes: int32 scalar, _UNKNOWN or _PNG to _PACKED_BMP."""
    header = _header(data)

    def starts(signature: bytes, at: int = 0) -> tf.Tensor:
        return tf.reduce_all(header[at : at + len(signature)] == list(signature))

    # Animated WebP counts as unknown, because TensorFlow 2.21 writes past its buffer when it decodes one.
    animated = starts(b"VP8X", at=12) & (header[20] & 2 != 0)
    still = starts(b"VP8 ", at=12) | starts(b"VP8L", at=12) | starts(b"VP8X", at=12)
    # The old header of OS/2 has 12 bytes, and other fields than all others. Packed pixels are neither 0 (as they are)
    # nor 3 (with a mask for each colour).
    bits, packing = _integer(header[28:30]), _integer(header[30:34])
    bmp, os2, packed = starts(b"BM"), _integer(header[14:18]) == 12, (packing != 0) & (packing != 3)
    windows = bmp & ~os2 & ~packed
    kinds = {
        # The decoders also take other first chunks, or none, and then the sides stand elsewhere than we look.
        _PNG: starts(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        _WEBP: starts(b"RIFF") & starts(b"WEBP", at=8) & still & ~animated,
        _BMP: windows & ((bits == 24) | (bits == 32)),
        _PALETTE_BMP: windows & (bits == 8),
        _OTHER_BMP: windows & (bits != 8) & (bits != 24) & (bits != 32),
        _OS2_BMP: bmp & os2,
        _PACKED_BMP: bmp & ~os2 & packed,
    }
    # At most one of them is true. If none is, the sum is 0, _UNKNOWN.
    return sum(kind * tf.cast(matches, tf.int32) for kind, matches in kinds.items())


@graphs.one_node
def _other_shape(data: tf.Tensor, kind: tf.Tensor) -> tf.Tensor:
    """Height and width from the header of an image that is not JPEG, int64 [2]; no pixel is decoded."""
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
    """The pixels of an image that is not JPEG, uint8 [H, W, 1 to 4]."""

    def without_palette() -> tf.Tensor:  # channels=0, because channels=3 fails on a WebP image with alpha
        return tf.io.decode_image(data, channels=0, expand_animations=False)

    return tf.cond(kind == _PALETTE_BMP, lambda: _decode_palette_bmp(data, _header(data)), without_palette)


def _decode_palette_bmp(data: tf.Tensor, header: tf.Tensor) -> tf.Tensor:
    """8-bit BMP -> uint8 [H, W, 3] through its table of colours (TensorFlow alone returns the indices as if grey).

    The table of (B, G, R, 0) starts behind the headers (14 bytes, and as many as byte 14 states) and ends where the
    pixels start (byte 10 states it).
    """
    start, end = 14 + _integer(header[14:18]), _integer(header[10:14])
    # Not with tf.strings.substr, because its error message holds the whole file, which Python then fails to decode.
    colours = tf.reshape(tf.io.decode_raw(data, tf.uint8)[start:end], [-1, 4])[:, 2::-1]
    return tf.gather(colours, tf.cast(tf.io.decode_bmp(data)[..., 0], tf.int32))


def _integer(digits: tf.Tensor) -> tf.Tensor:
    """sum_i digits[i] 256^i: little-endian bytes, int64 [n] -> int64 scalar."""
    return tf.reduce_sum(digits * [256**i for i in range(digits.shape[0])])


def check(condition: tf.Tensor, *message: str | tf.Tensor) -> tf.Operation | None:
    """An operation that raises InvalidArgumentError with `message`, its parts joined, if `condition` is false."""
    return tf.debugging.Assert(condition, [tf.strings.join(message)])


def _plain(message: str) -> str:
    """TensorFlow's error text in one line, without names of nodes, Python's traceback and the word 'assertion'."""
    message = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*?\]", "", message)
    lines = [line.strip() for line in message.splitlines() if not line.startswith(("Graph ", "Detected ", "  File "))]
    text = " ".join(filter(None, lines))
    return re.sub(r"^assertion failed: \[(?:: )?(.*)\]$", r"\1", text)
