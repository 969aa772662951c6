"""Encoded images of every format and mode that is read, and of some odd ones."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from deitlt_tf.data.dataset import Source

LIMIT = 1_000_000  # pixels


def picture(width: int = 23, height: int = 17, *, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def interlaced_png(width: int, height: int) -> bytes:
    """Adam7, which Pillow reads but cannot write; grey level = row + column."""
    grid = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [grid[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*chunks, (b"IEND", b"")]
    )


def top_down_bmp(image: Image.Image) -> bytes:
    data = bytearray(encoded(image, "BMP"))
    data[22:26] = struct.pack("<i", -image.height)
    return bytes(data)


def fill_bytes(jpeg: bytes) -> bytes:
    """Rubbish and repeated 255 between two segments: libjpeg passes them over."""
    end = 4 + int.from_bytes(jpeg[4:6])
    return jpeg[:end] + b"\x07\x07\xff\xff" + jpeg[end:]


def in_memory(images: Sequence[str | bytes]) -> Source:
    """A source of one class."""
    return Source(np.array(images, object), np.zeros(len(images), np.int32), ("a",))


EXIF = Image.Exif()

EXIF[0x010E] = "a description that no buffer holds " * 1500

ENCODINGS = {
    "jpeg": lambda image: encoded(image, "JPEG"),
    "jpeg progressive": lambda image: encoded(image, "JPEG", progressive=True),
    "jpeg grey": lambda image: encoded(image.convert("L"), "JPEG"),
    "jpeg cmyk": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "jpeg exif": lambda image: encoded(image, "JPEG", exif=EXIF),
    "jpeg profile": lambda image: encoded(image, "JPEG", icc_profile=bytes(200_000)),
    "jpeg thumbnail": lambda image: encoded(image, "JPEG", comment=encoded(picture(5, 9), "JPEG")),
    "jpeg restart": lambda image: encoded(image, "JPEG", restart_marker_rows=1),
    "jpeg fill bytes": lambda image: fill_bytes(encoded(image, "JPEG")),
    "png": lambda image: encoded(image, "PNG"),
    "png palette": lambda image: encoded(image.convert("P"), "PNG"),
    "png interlaced": lambda image: interlaced_png(*image.size),
    "webp VP8": lambda image: encoded(image, "WEBP"),
    "webp VP8L": lambda image: encoded(image, "WEBP", lossless=True),
    "webp VP8X": lambda image: encoded(image.convert("RGBA"), "WEBP", exif=EXIF),
    "bmp": lambda image: encoded(image, "BMP"),
    "bmp palette": lambda image: encoded(image.convert("P"), "BMP"),
    "bmp alpha": lambda image: encoded(image.convert("RGBA"), "BMP"),
    "bmp top-down": top_down_bmp,
}

SAMPLES = {name: encode(picture()) for name, encode in ENCODINGS.items()}
