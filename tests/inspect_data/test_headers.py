"""Headers against Pillow and the decoder: the same sizes, and nothing is refused that could be decoded."""

import io
import struct

import numpy as np
import pytest
from helpers.encodings import ENCODINGS, LIMIT, SAMPLES, encoded, in_memory, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deitlt_tf.data import decode
from deitlt_tf.inspect_data import headers, survey


def header(data):
    return headers.read(io.BytesIO(data), length=len(data))


@settings(max_examples=5, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
@pytest.mark.parametrize("name", ENCODINGS)
def test_sizes_equal_pillows(name, width, height):
    data = ENCODINGS[name](picture(width, height))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert header(data)[1:3] == image.size == (width, height)
        assert header(data).format.upper() == image.format


def test_the_samples_are_what_their_names_say():
    assert Image.open(io.BytesIO(SAMPLES["jpeg progressive"])).info["progressive"]
    assert Image.open(io.BytesIO(SAMPLES["png interlaced"])).info["interlace"] == 1
    assert [SAMPLES[f"webp {chunk}"][12:16].decode().strip() for chunk in ("VP8", "VP8L", "VP8X")] == [
        "VP8", "VP8L", "VP8X"
    ]  # fmt: skip
    assert len(SAMPLES["jpeg exif"]) > 50_000 and len(SAMPLES["jpeg profile"]) > 200_000
    assert SAMPLES["jpeg thumbnail"].count(b"\xff\xd9") == 2


@settings(deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.floats(0, 1, exclude_max=True))
def test_every_file_that_was_cut_off_is_refused(name, share):
    with pytest.raises(ValueError, match=r"cut off|damaged|empty|not a JPEG"):
        header(SAMPLES[name][: int(share * len(SAMPLES[name]))])


@settings(deadline=None)
@given(st.sampled_from([name for name in sorted(SAMPLES) if "bmp" not in name]), st.binary(max_size=10_000))
def test_what_follows_the_end_changes_nothing(name, rest):
    assert header(SAMPLES[name] + rest) == header(SAMPLES[name])


def test_what_headers_refuse_the_decoder_refuses():
    rng = np.random.default_rng(0)
    cut = [data[: len(data) - missing] for data in SAMPLES.values() for missing in (40, 200)]
    damaged = []
    for data in SAMPLES.values():
        for _ in range(12):
            wrong = np.frombuffer(data, np.uint8).copy()
            wrong[rng.integers(0, 60, 2)] = rng.integers(0, 256, 2)
            damaged.append(wrong.tobytes())
    others = [b"", b"<html>404</html>", encoded(picture(), "GIF"), encoded(picture(mode="1"), "BMP")]
    others += [encoded(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)])]
    images = [*SAMPLES.values(), *cut, *others, *damaged]
    by_decoder = {index for index, _ in decode.bad_images(images, [""] * len(images), max_pixels=LIMIT, progress=False)}
    looks = survey.check_files(in_memory(images), max_pixels=LIMIT)
    by_headers = {index for index, seen in enumerate(looks) if seen.problem}
    sure = set(range(len(SAMPLES), len(images) - len(damaged)))
    assert sure <= by_headers <= by_decoder and by_decoder.isdisjoint(range(len(SAMPLES)))
    assert len(by_headers) - len(sure) > 50  # damaged headers are noticed, too


# ---- remarks ---------------------------------------------------------------------------------------------------------


def exif(orientation: int, *, description: bool = False) -> bytes:
    entries = Image.Exif()
    if description:
        entries[0x010E] = "a description"
    entries[0x0112] = orientation
    return entries.tobytes()


def big_endian_exif(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_images_turned_by_exif_are_remarked(file_format, orientation):
    turned = [headers.TURNED] if 2 <= orientation <= 8 else []
    for data in (exif(orientation), exif(orientation, description=True), big_endian_exif(orientation)):
        image = encoded(picture(), file_format, exif=data)
        assert list(header(image).remarks) == turned and header(image)[1:3] == (23, 17)


@given(st.binary(max_size=200))
def test_damaged_exif_is_no_mistake(data):
    for file_format in ("JPEG", "PNG", "WEBP"):
        for exif in (b"Exif\0\0II*\0" + data, b"Exif\0\0" + data):
            assert header(encoded(picture(3, 3), file_format, exif=exif))[1:3] == (3, 3)


def test_samples_have_no_remarks_except_where_other_programs_show_something_else():
    assert {name for name, data in SAMPLES.items() if header(data).remarks} == set()
    deep = encoded(Image.fromarray(np.zeros([4, 4], np.uint16)), "PNG")
    assert header(deep).remarks == (headers.DEEP,)
    cmyk = SAMPLES["jpeg cmyk"]
    start = cmyk.index(b"\xff\xee")
    end = start + 2 + int.from_bytes(cmyk[start + 2 : start + 4])
    without_mark = cmyk[:start] + cmyk[end:]
    assert header(without_mark).remarks == (headers.CMYK,)
    theirs = np.asarray(Image.open(io.BytesIO(without_mark)).convert("RGB")).astype(int)
    ours = decode.decode(without_mark, name="x", max_pixels=LIMIT).numpy()
    assert np.abs(ours - theirs).mean() > 10  # which is why they are remarked


def test_other_kinds_of_bmp_get_the_true_reason():
    colours = SAMPLES["bmp"]
    os2 = b"BM" + struct.pack("<IIIIHHHH", len(colours) - 28, 0, 26, 12, 23, 17, 1, 24) + colours[54:]
    packed = bytearray(SAMPLES["bmp palette"])
    packed[30] = 1
    for data, reason in [
        (encoded(picture(mode="1"), "BMP"), "a BMP image of 1 bits a pixel"),
        (os2, "a BMP image with the header of OS/2"),
        (bytes(packed), "a compressed BMP image"),
    ]:
        with pytest.raises(ValueError, match=reason):
            header(data)
