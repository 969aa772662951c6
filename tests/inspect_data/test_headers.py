"""Headers against Pillow and the decoder: the same sizes, and nothing is refused that could be decoded."""

import io

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
        assert header(data)[1:] == image.size == (width, height)
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
