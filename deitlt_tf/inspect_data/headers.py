"""Format and size of an encoded image from its header, and whether its end is there. No pixel is decoded.

`read` refuses what `data.decode` would refuse, as far as a few kilobytes can tell: other formats, damaged headers,
files that are cut off. `read` is stricter for JPEG, because the decoder accepts a file without an end mark if all rows
of pixels are there.
"""

import struct
import zlib
from typing import BinaryIO, NamedTuple

UNKNOWN = "not a JPEG, PNG, BMP or (not animated) WebP image"
TAIL = 4096  # bytes at the end of a file that are searched first for the mark of the end
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # baseline, progressive, ...; the three exceptions are tables
_JPEG_SCAN = 0xDA


class Header(NamedTuple):
    """format: JPEG, PNG, WebP or BMP. width, height: pixels, as stored (EXIF rotation is ignored, as in training)."""

    format: str
    width: int
    height: int


def read(stream: BinaryIO, *, length: int) -> Header:
    """The header of an image.

    stream: the image, at its first byte. length: bytes of the whole image.
    Raises ValueError with the reason if it is not JPEG, PNG, WebP or BMP, has a damaged header, or is cut off.
    """
    start = stream.read(33)  # the length of PNG's header, the longest of those with a fixed length
    try:
        if start.startswith(b"\xff\xd8\xff"):
            header = Header("JPEG", *_jpeg(stream, length))
        elif start.startswith(b"\x89PNG\r\n\x1a\n"):
            header = Header("PNG", *_png(stream, start, length))
        elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            header = Header("WebP", *_webp(start, length))
        elif start.startswith(b"BM"):
            header = Header("BMP", *_bmp(start, length))
        else:
            raise ValueError("empty file" if not length else UNKNOWN)
    except struct.error:
        raise ValueError(f"cut off in its header, after {length} bytes") from None
    if header.width <= 0 or header.height <= 0:
        raise ValueError(f"damaged header: {header.width} x {header.height} pixels")
    return header


def _jpeg(stream: BinaryIO, length: int) -> tuple[int, int]:
    """Width and height from the frame header. Megabytes of other segments (EXIF, colour profile) can precede it."""
    size: tuple[int, int] | None = None
    stream.seek(2)
    while (marker := _jpeg_marker(stream)) != _JPEG_SCAN:
        (extent,) = struct.unpack(">H", stream.read(2))
        after = stream.tell() + max(0, extent - 2)
        if marker in _JPEG_FRAMES:
            _, height, width = struct.unpack(">BHH", stream.read(5))
            size = width, height
        stream.seek(after)
    if size is None:
        raise ValueError("damaged header: a JPEG scan without a frame")
    # Within a scan, byte 255 is always followed by 0 or by a restart mark, so the mark of the end cannot occur there.
    return _unless_cut_off(size, stream, b"\xff\xd9", start=stream.tell(), length=length)


def _jpeg_marker(stream: BinaryIO) -> int:
    """The code after the next byte 255; bytes between segments and repeated 255 are skipped, as in libjpeg."""
    while True:
        while (byte := stream.read(1)) not in (b"\xff", b""):
            pass
        while byte == b"\xff":
            byte = stream.read(1)
        (code,) = struct.unpack("B", byte)
        if code == 0xD9:
            raise ValueError("damaged header: a JPEG without a scan")
        if code:
            return code


def _png(stream: BinaryIO, start: bytes, length: int) -> tuple[int, int]:
    size = struct.unpack(">II", start[16:24])
    if start[12:16] != b"IHDR" or zlib.crc32(start[12:29]) != int.from_bytes(start[29:33]):
        raise ValueError("damaged header: its checksum is wrong")
    return _unless_cut_off(size, stream, b"IEND\xaeB`\x82", start=len(start), length=length)


def _webp(start: bytes, length: int) -> tuple[int, int]:
    """Width and height from the first chunk: VP8 (lossy), VP8L (lossless) or VP8X (canvas of either)."""
    extent, chunk = struct.unpack("<I4x4s", start[4:16])
    if 8 + extent > length:
        raise ValueError(f"cut off: {length} bytes of {8 + extent}")
    if chunk == b"VP8 ":
        key, width, height = struct.unpack("<3sHH", start[23:30])
        if key == b"\x9d\x01\x2a":
            return width % 2**14, height % 2**14
    elif chunk == b"VP8L":
        key, bits = struct.unpack("<cI", start[20:25])
        if key == b"\x2f":
            return bits % 2**14 + 1, (bits >> 14) % 2**14 + 1
    elif chunk == b"VP8X":
        flags, width, height = struct.unpack("<B3x3s3s", start[20:30])
        if flags & 2:  # animated
            raise ValueError(UNKNOWN)
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
    raise ValueError("damaged header: no image in the first chunk of WebP")


def _bmp(start: bytes, length: int) -> tuple[int, int]:
    """Width and height. Rows are padded to a multiple of four bytes; negative height means rows from top to bottom."""
    offset, width, height, bits = struct.unpack("<I4xii2xH", start[10:30])
    if bits not in (8, 24, 32):
        raise ValueError(f"a BMP image of {bits} bits a pixel: only 8, 24 and 32 can be decoded")
    expected = offset + (width * bits + 31) // 32 * 4 * abs(height)
    if length != expected:
        raise ValueError(f"cut off or damaged: {length} bytes, where a BMP of this size has {expected}")
    return width, abs(height)


def _unless_cut_off(
    size: tuple[int, int], stream: BinaryIO, mark: bytes, *, start: int, length: int
) -> tuple[int, int]:
    """`size`, after a check that `mark`, with which the image ends, is in the file. Other bytes may follow the mark.

    start: the first byte where the mark can be. Raises ValueError without the mark.
    """
    for begin in (max(start, length - TAIL), start):
        stream.seek(begin)
        if mark in stream.read(
            length - begin
        ):  # with a number of bytes, because then the buffer often has them already
            return size
    raise ValueError(f"cut off: the mark of its end is not among its {length} bytes")
