"""Format and size of an encoded image from its header, remarks, and whether its end is there. No pixel is decoded.

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
_EXIF = b"Exif\0\0"
_EXIF_BYTES = 4096  # of EXIF data that are read: the orientation is among the first entries

# Remarks on images that can be read, but not as every other program shows them.
TURNED = "turned"  # by an EXIF orientation
DEEP = "deep"  # PNG of 16 bits a channel
CMYK = "CMYK"  # JPEG of four channels without Adobe's mark, which says that they are stored inverted


class Header(NamedTuple):
    """format: JPEG, PNG, WebP or BMP. width, height: pixels, as stored (EXIF rotation is ignored, as in training).

    remarks: TURNED, DEEP, CMYK or none.
    """

    format: str
    width: int
    height: int
    remarks: tuple[str, ...] = ()


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
            header = Header("WebP", *_webp(stream, start, length))
        elif start.startswith(b"BM"):
            header = Header("BMP", *_bmp(start, length))
        else:
            raise ValueError("empty file" if not length else UNKNOWN)
    except struct.error:
        raise ValueError(f"cut off in its header, after {length} bytes") from None
    if header.width <= 0 or header.height <= 0:
        raise ValueError(f"damaged header: {header.width} x {header.height} pixels")
    return header


def _jpeg(stream: BinaryIO, length: int) -> tuple[int, int, tuple[str, ...]]:
    """Width and height from the frame header. Megabytes of other segments (EXIF, colour profile) can precede it."""
    size: tuple[int, int] | None = None
    channels, adobe, turned = 3, False, False
    stream.seek(2)
    while (marker := _jpeg_marker(stream)) != _JPEG_SCAN:
        (extent,) = struct.unpack(">H", stream.read(2))
        after = stream.tell() + max(0, extent - 2)
        if marker in _JPEG_FRAMES:
            _, height, width, channels = struct.unpack(">BHHB", stream.read(6))
            size = width, height
        elif marker == 0xE1 and (start := stream.read(min(max(0, extent - 2), _EXIF_BYTES))).startswith(_EXIF):
            turned = _is_turned(start[len(_EXIF) :])
        elif marker == 0xEE:
            adobe = stream.read(5) == b"Adobe"
        stream.seek(after)
    if size is None:
        raise ValueError("damaged header: a JPEG scan without a frame")
    # Within a scan, byte 255 is always followed by 0 or by a restart mark, so the mark of the end cannot occur there.
    _refuse_cut_off(stream, b"\xff\xd9", start=stream.tell(), length=length)
    return *size, _remarks({TURNED: turned, CMYK: channels == 4 and not adobe})


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


def _png(stream: BinaryIO, start: bytes, length: int) -> tuple[int, int, tuple[str, ...]]:
    width, height, bits = struct.unpack(">IIB", start[16:25])
    if start[12:16] != b"IHDR" or zlib.crc32(start[12:29]) != int.from_bytes(start[29:33]):
        raise ValueError("damaged header: its checksum is wrong")
    _refuse_cut_off(stream, b"IEND\xaeB`\x82", start=len(start), length=length)
    turned = _is_turned(_chunk(stream, b"eXIf", layout=">I4s", start=len(start), until=b"IDAT", after=4))
    return width, height, _remarks({TURNED: turned, DEEP: bits == 16})


def _webp(stream: BinaryIO, start: bytes, length: int) -> tuple[int, int, tuple[str, ...]]:
    """Width and height from the first chunk: VP8 (lossy), VP8L (lossless) or VP8X (canvas of either)."""
    extent, chunk = struct.unpack("<I4x4s", start[4:16])
    if 8 + extent > length:
        raise ValueError(f"cut off: {length} bytes of {8 + extent}")
    if chunk == b"VP8 ":
        key, width, height = struct.unpack("<3sHH", start[23:30])
        if key == b"\x9d\x01\x2a":
            return width % 2**14, height % 2**14, ()
    elif chunk == b"VP8L":
        key, bits = struct.unpack("<cI", start[20:25])
        if key == b"\x2f":
            return bits % 2**14 + 1, (bits >> 14) % 2**14 + 1, ()
    elif chunk == b"VP8X":
        flags, width, height = struct.unpack("<B3x3s3s", start[20:30])
        if flags & 2:  # animated
            raise ValueError(UNKNOWN)
        exif = _chunk(stream, b"EXIF", layout="<4sI", start=12, until=b"", after=0) if flags & 8 else b""
        remarks = _remarks({TURNED: _is_turned(exif.removeprefix(_EXIF))})
        return int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1, remarks
    raise ValueError("damaged header: no image in the first chunk of WebP")


def _bmp(start: bytes, length: int) -> tuple[int, int]:
    """Width and height. Rows are padded to a multiple of four bytes; negative height means rows from top to bottom."""
    offset, header_size, width, height, bits = struct.unpack("<IIii2xH", start[10:30])
    if header_size == 12:
        raise ValueError("a BMP image with the header of OS/2, which cannot be decoded")
    if start[30:31] not in (b"\0", b"\3"):  # as they are, or with a mask for each colour
        raise ValueError("a compressed BMP image, which cannot be decoded")
    if bits not in (8, 24, 32):
        raise ValueError(f"a BMP image of {bits} bits a pixel: only 8, 24 and 32 can be decoded")
    expected = offset + (width * bits + 31) // 32 * 4 * abs(height)
    if length != expected:
        raise ValueError(f"cut off or damaged: {length} bytes, where a BMP of this size has {expected}")
    return width, abs(height)


def _refuse_cut_off(stream: BinaryIO, mark: bytes, *, start: int, length: int) -> None:
    """Raises ValueError if `mark`, with which the image ends, is not in the file. Other bytes may follow the mark.

    start: the first byte where the mark can be.
    """
    for begin in (max(start, length - TAIL), start):
        stream.seek(begin)
        # with a number of bytes, because then the buffer often has them already
        if mark in stream.read(length - begin):
            return
    raise ValueError(f"cut off: the mark of its end is not among its {length} bytes")


def _chunk(stream: BinaryIO, name: bytes, *, layout: str, start: int, until: bytes, after: int) -> bytes:
    """The first bytes of the chunk of that name; b"" if there is none before the chunk `until`.

    layout: of a chunk's length and name, in this order if big-endian (PNG), else the other way round (WebP).
    start: the first chunk. after: bytes of a checksum after each chunk.
    """
    stream.seek(start)
    while len(head := stream.read(8)) == 8:
        extent, kind = sorted(struct.unpack(layout, head), key=lambda value: isinstance(value, bytes))
        if kind == name:
            return stream.read(min(extent, _EXIF_BYTES))
        if kind == until:
            break
        # A chunk of WebP has an even number of bytes.
        stream.seek(extent + (after or extent % 2), 1)
    return b""


def _is_turned(exif: bytes) -> bool:
    """Whether the orientation in EXIF data (a TIFF header, then entries of 12 bytes) is another than upright."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2], "")
    if not order or len(exif) < 8:
        return False
    (start,) = struct.unpack(order + "I", exif[4:8])
    (count,) = struct.unpack(order + "H", exif[start : start + 2].ljust(2, b"\0"))
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack(order + "HHIH", exif[entry : entry + 10])
        if (tag, kind) == (0x0112, 3):
            return 2 <= value <= 8
    return False


def _remarks(holds: dict[str, bool]) -> tuple[str, ...]:
    return tuple(remark for remark, is_true in holds.items() if is_true)
