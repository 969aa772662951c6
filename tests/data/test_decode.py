"""Every format and mode against Pillow; what must be refused is refused before decoding, with a clear sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from helpers.encodings import LIMIT, encoded
from PIL import Image

from deitlt_tf.data import decode
from deitlt_tf.data.dataset import Source, Splits


def pixels(height=23, width=37, channels=4):
    """Smooth colours (JPEG keeps them), every channel different."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // height, columns * 255 // width, (rows + columns) * 2, 255 - rows * 5]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def picture(mode):
    rgba = Image.fromarray(pixels())
    if mode == "P":
        return rgba.convert("RGB").quantize(32)
    return rgba.convert("RGB").convert(mode) if mode in ("1", "CMYK") else rgba.convert(mode)


def header_only(file_format, width, height):
    """The first bytes of an image that claims width x height, followed by nothing that could be decoded."""
    if file_format == "PNG":
        chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    if file_format == "BMP":
        return b"BM" + struct.pack("<IIIIiiHHI", 54, 0, 54, 40, width, height, 1, 24, 0) + bytes(20)
    if file_format == "JPEG":
        frame = struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
        scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0])
        return b"\xff\xd8\xff\xc0" + frame + scan + b"\xff\xd9"
    chunk = {
        "VP8 ": b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height),
        "VP8L": b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14),
        "VP8X": bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
    }[file_format]
    return (
        b"RIFF"
        + struct.pack("<I", 12 + len(chunk))
        + b"WEBP"
        + file_format.encode()
        + struct.pack("<I", len(chunk))
        + chunk
    )


CASES = [
    *[("PNG", mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "P", "1")],
    *[("JPEG", mode, {"quality": 95}) for mode in ("L", "RGB", "CMYK")],
    *[("WEBP", mode, {"lossless": lossless}) for mode in ("L", "RGB", "RGBA") for lossless in (True, False)],
    *[("BMP", mode, {}) for mode in ("L", "RGB", "RGBA", "P")],
]


@pytest.mark.parametrize(("file_format", "mode", "options"), CASES, ids=lambda value: str(value))
def test_every_format_and_mode_equals_pillow(file_format, mode, options):
    data = encoded(picture(mode), file_format, **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert expected.std() > 10
    eager = decode.decode(data, name="x", max_pixels=LIMIT)
    assert eager.dtype == tf.uint8
    np.testing.assert_array_equal(eager, expected)
    mapped = tf.data.Dataset.from_tensors(data).map(lambda d: decode.decode(d, name="x", max_pixels=LIMIT))
    assert mapped.element_spec.shape.as_list() == [None, None, 3]
    np.testing.assert_array_equal(next(iter(mapped)), eager)


def test_16_bit_png_keeps_the_high_byte():
    deep = Image.fromarray(pixels(channels=1)[..., 0].astype(np.uint16) * 256 + 77)
    image = decode.decode(encoded(deep, "PNG"), name="x", max_pixels=LIMIT)
    np.testing.assert_array_equal(image, np.repeat(pixels(channels=1), 3, axis=-1))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "VP8 ", "VP8L", "VP8X"])
def test_an_image_bomb_is_refused_from_its_header(file_format):
    data = header_only(file_format, width=12_000, height=9_000)
    message = r"bomb\.img: 12000 x 9000 pixels are more than the limit of 1000000 \(`max_pixels`\)"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode.decode(data, name="bomb.img", max_pixels=LIMIT)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:  # allowed by the limit, it fails in the decoder
        decode.decode(data, name="bomb.img", max_pixels=108_000_000)
    assert "max_pixels" not in str(error.value)


def test_the_limit_counts_pixels_exactly_and_survives_huge_sides():
    data = encoded(Image.fromarray(pixels(height=20, width=30, channels=3)), "PNG")
    assert decode.decode(data, name="x", max_pixels=600).shape == (20, 30, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="limit of 599"):
        decode.decode(data, name="x", max_pixels=599)
    with pytest.raises(tf.errors.InvalidArgumentError, match="max_pixels"):
        decode.decode(header_only("PNG", 2**32 - 1, 2**32 - 1), name="x", max_pixels=LIMIT)
    with pytest.raises(tf.errors.InvalidArgumentError, match="5000 x 4000"):
        decode.decode(header_only("BMP", 5000, -4000), name="x", max_pixels=LIMIT)


def test_a_side_beyond_jpegs_own_limit_is_refused():
    row = Image.fromarray(np.zeros([1, decode.MAX_SIDE + 1, 3], np.uint8))
    for image, size in ((row, "65536 x 1"), (row.transpose(Image.Transpose.ROTATE_90), "1 x 65536")):
        for file_format in ("PNG", "BMP"):
            with pytest.raises(tf.errors.InvalidArgumentError, match=f"x: {size} pixels, a side of more than 65535"):
                decode.decode(encoded(image, file_format), name="x", max_pixels=LIMIT)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"x: 8000000 x 1 pixels, a side"):
        decode.decode(header_only("BMP", 8_000_000, 1), name="x", max_pixels=8 * LIMIT)
    longest = encoded(row.crop((0, 0, decode.MAX_SIDE, 1)), "PNG")
    assert decode.decode(longest, name="x", max_pixels=LIMIT).shape == (1, decode.MAX_SIDE, 3)


def os2_bmp(data: bytes) -> bytes:
    """The same pixels with the header of OS/2, 12 bytes."""
    width, height = struct.unpack("<ii", data[18:26])
    return b"BM" + struct.pack("<IIIIHHHH", len(data) - 28, 0, 26, 12, width, height, 1, 24) + data[54:]


def test_other_kinds_of_bmp_are_refused_with_the_true_reason():
    colours = encoded(picture("RGB"), "BMP")
    packed = bytearray(encoded(picture("P"), "BMP"))
    packed[30] = 1
    assert Image.open(io.BytesIO(os2_bmp(colours))).size == (37, 23)
    for data, reason in [
        (encoded(picture("1"), "BMP"), "a BMP image of other than 8, 24 or 32 bits a pixel"),
        (os2_bmp(colours), "a BMP image with the header of OS/2"),
        (bytes(packed), "a compressed BMP image"),
    ]:
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"x: {reason}"):
            decode.decode(data, name="x", max_pixels=LIMIT)


def test_a_bmp_stored_from_top_to_bottom():
    data = bytearray(encoded(Image.fromarray(pixels(channels=3)), "BMP"))
    data[22:26] = struct.pack("<i", -23)
    image = decode.decode(bytes(data), name="x", max_pixels=LIMIT)
    np.testing.assert_array_equal(image, pixels(channels=3)[::-1])


def test_an_animated_webp_is_refused():
    frames = [Image.fromarray(pixels(channels=3)), Image.fromarray(255 - pixels(channels=3))]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a\.webp: not a JPEG, PNG, BMP or \(not animated\) WebP"):
        decode.decode(data, name="a.webp", max_pixels=LIMIT)


def test_bad_images_are_named_with_one_line_each(tmp_path):
    good = encoded(Image.fromarray(pixels(channels=3)), "JPEG")
    contents = {
        "good.jpg": good,
        "cut.jpg": good[: len(good) // 2],
        "tail.jpg": good[:-2],
        "cut.png": encoded(picture("RGB"), "PNG")[:-60],
        "cut.bmp": encoded(picture("RGB"), "BMP")[:-60],
        "palette.bmp": encoded(picture("P"), "BMP")[:40],
        "cut.webp": encoded(picture("RGB"), "WEBP")[:-60],
        "text.jpg": b"<html>404</html>",
        "empty.jpg": b"",
        "movie.gif": encoded(picture("P"), "GIF"),
        "bomb.png": header_only("PNG", 50_000, 50_000),
        "good.png": encoded(picture("RGBA"), "PNG"),
    }
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    names = [*contents, "gone.jpg"]
    paths = [str(tmp_path / name) for name in names]
    found = decode.bad_images(paths, names, max_pixels=LIMIT, progress=False)
    wrong = [index for index, name in enumerate(names) if not name.startswith("good")]
    assert [index for index, _ in found] == wrong
    reasons = {names[index]: reason for index, reason in found}
    for name, reason in reasons.items():
        assert reason.startswith(f"{name}: ") and "\n" not in reason and len(reason) < 200 + len(str(tmp_path))
        assert not any(noise in reason for noise in ("{{", "[[", "Op:", "node", "assert", "Graph"))
    assert reasons["text.jpg"] == reasons["empty.jpg"].replace("empty", "text")
    assert reasons["text.jpg"] == "text.jpg: not a JPEG, PNG, BMP or (not animated) WebP image"
    assert reasons["bomb.png"].endswith("50000 x 50000 pixels are more than the limit of 1000000 (`max_pixels`)")
    assert "Invalid JPEG data" in reasons["cut.jpg"] and "Invalid JPEG data" in reasons["tail.jpg"]
    assert "No such file" in reasons["gone.jpg"]
    # encoded bytes, from a generator, are judged alike
    assert decode.bad_images(iter(contents.values()), names[:-1], max_pixels=LIMIT, progress=False) == found[:-1]


def test_read_reads_what_was_written(tmp_path):
    Image.fromarray(pixels(channels=3)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(decode.read(str(tmp_path / "a.png"), max_pixels=LIMIT), pixels(channels=3))
    with pytest.raises(tf.errors.NotFoundError, match=r"b\.png"):
        decode.read(str(tmp_path / "b.png"), max_pixels=LIMIT)


def test_damaged_headers_give_reasons_and_nothing_worse():
    rng = np.random.default_rng(0)
    damaged = []
    for mode, file_format in [("RGB", "JPEG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("P", "BMP"), ("RGB", "BMP")]:
        for _ in range(40):
            data = np.frombuffer(encoded(picture(mode), file_format), np.uint8).copy()
            data[rng.integers(0, 60, 3)] = rng.integers(0, 256, 3)
            damaged.append(data.tobytes())
    found = decode.bad_images(damaged, [str(i) for i in range(len(damaged))], max_pixels=LIMIT, progress=False)
    assert 50 < len(found) < len(damaged)
    assert all(reason.isprintable() for _, reason in found)


# ---- a failed run names the image ------------------------------------------------------------------------------------


def splits_of(path: str) -> Splits:
    source = Source(np.array([path], object), np.zeros(1, np.int32), ("a",))
    return Splits(source, None, source)


def test_every_error_of_a_file_names_it(tmp_path, capsys):
    (tmp_path / "link.jpg").symlink_to("link.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "damaged.jpg").write_bytes(b"")
    for name, reason in [
        ("link.jpg", "Too many levels of symbolic links"),
        ("folder.jpg", "Is a directory"),
        ("gone.jpg", "No such file"),
        ("damaged.jpg", "not a JPEG"),
    ]:
        path = str(tmp_path / name)
        with pytest.raises(ValueError, match=rf"^{path}: .*{reason}.*Repair or remove it, .* `skip_bad_images`"):
            decode.naming_bad_images(
                lambda path=path: decode.read(path, max_pixels=LIMIT), splits_of(path), max_pixels=LIMIT
            )
    assert "looking for all" in capsys.readouterr().out


@pytest.mark.parametrize("error", [tf.errors.PermissionDeniedError, tf.errors.UnknownError, tf.errors.DataLossError])
def test_errors_that_no_image_causes_stay(tmp_path, error):
    path = tmp_path / "good.png"
    Image.fromarray(pixels(channels=3)).save(path)

    def fail():
        raise error(None, None, "the network")

    with pytest.raises(error, match="the network"):
        decode.naming_bad_images(fail, splits_of(str(path)), max_pixels=LIMIT)


@pytest.mark.parametrize(
    "error",
    [MemoryError("Unable to allocate 3 TiB"), tf.errors.ResourceExhaustedError(None, None, "OOM {{node x}} when")],
)
def test_a_lack_of_memory_says_what_to_lower(error):
    def fail():
        raise error

    with pytest.raises(
        ValueError, match=r"^memory ran out \((OOM +when|Unable to.*)\): lower `batch_size`, raise `acc"
    ):
        decode.naming_bad_images(fail, splits_of("gone.png"), max_pixels=LIMIT)


def webp_without_chunks(width: int, height: int) -> bytes:
    """A raw VP8L stream of one colour directly after the mark WEBP, which libwebp decodes, too."""
    bits = (width - 1) | (height - 1) << 14
    for code in range(5):  # a code of one symbol each: green, red, blue, alpha, distance
        bits |= 1 << (35 + 4 * code)
    stream = b"\x2f" + bits.to_bytes(8, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(stream)) + b"WEBP" + stream


def png_with_another_first_chunk(width: int, height: int) -> bytes:
    """A chunk that decoders skip, whose first 8 bytes say 1 x 1, before the header."""
    whole = encoded(Image.new("RGB", (width, height)), "PNG")
    data = struct.pack(">II", 1, 1)
    chunk = struct.pack(">I", len(data)) + b"aaAa" + data + struct.pack(">I", zlib.crc32(b"aaAa" + data))
    return whole[:8] + chunk + whole[8:]


@pytest.mark.parametrize("make", [webp_without_chunks, png_with_another_first_chunk])
def test_a_file_whose_sides_stand_elsewhere_is_not_decoded(make):
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG"):
        decode.decode(tf.constant(make(300, 200)), name="image 1", max_pixels=1000)
