"""safetensors files: what is written is read, and a header that lies is refused in one sentence."""

import pickle

import numpy as np
import pytest
from helpers.safetensors_files import file_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.interop import safetensors

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4),
    dtype=st.sampled_from(["<f4", "<f2", "<f8", "<i8"]),
)
def test_what_is_written_is_read(tmp_path_factory, shapes, dtype):
    draw = np.random.default_rng(0)
    arrays = {f"a.{i}": draw.normal(size=shape).astype(dtype) for i, shape in enumerate(shapes)}
    path = tmp_path_factory.mktemp("files") / "w.safetensors"
    write(path, arrays)
    read = safetensors.read(path)
    assert read.keys() == arrays.keys()
    for name, value in arrays.items():
        assert read[name].dtype == (np.float32 if dtype[1] == "f" else np.int64)
        np.testing.assert_array_equal(read[name], value.astype(read[name].dtype))


@pytest.mark.parametrize("length", [632, 640, 896, 1152, 1408, 66176])
def test_a_header_whose_length_begins_like_a_pickle_is_read(tmp_path, length):
    content = file_of({"x": ENTRY}, np.float32([1, 2]).tobytes())
    header = content[8:-8].ljust(length)
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + header + content[-8:])
    np.testing.assert_array_equal(safetensors.read(path)["x"], [1, 2])


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    path = tmp_path / "w.safetensors"
    numbers = np.array([1.0, -2.5, 0.15625], np.float32)  # exact in 8 bits of mantissa
    data = (numbers.view(np.uint32) >> 16).astype("<u2").tobytes()
    path.write_bytes(file_of({"x": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}, data))
    np.testing.assert_array_equal(safetensors.read(path)["x"], numbers)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"promise a header of 0 bytes, and the file has 0"),
        (b"\x05\0\0", "promise a header"),
        (file_of({"x": ENTRY}, b"\0" * 8, length=10**15), f"promise a header of {10**15} bytes, and the file has"),
        (file_of({"x": ENTRY}, b"\0" * 8, length=9), "its header is not JSON"),
        (file_of(b"\xff\xfe"), "its header is not JSON"),
        (file_of(b"[" * 100_000), "its header is not JSON"),
        (file_of([1, 2]), "its header is not a JSON object"),
        (file_of(b'{"x": {}, "x": {}}'), "'x' stands twice in its header"),
        (file_of({"x": 3}), "the entry of 'x' does not consist of dtype, shape and data_offsets"),
        (file_of({"x": ENTRY | {"code": "print(1)"}}, b"\0" * 8), "the entry of 'x' does not consist of"),
        (file_of({"x": ENTRY | {"dtype": "F4"}}, b"\0" * 8), "'x' is of the type 'F4'; BOOL, I8"),
        (file_of({"x": ENTRY | {"dtype": ["F32"]}}, b"\0" * 8), "'x' is of the type"),
        (file_of({"x": ENTRY | {"shape": [3]}}, b"\0" * 8), r"the shape \[3\] of F32, which does not fill"),
        (file_of({"x": ENTRY | {"shape": [-2]}}, b"\0" * 8), "the shape of 'x' is not a list of whole numbers"),
        (file_of({"x": ENTRY | {"shape": [2.0]}}, b"\0" * 8), "the shape of 'x' is not a list of whole numbers"),
        (file_of({"x": ENTRY | {"shape": [True, 2]}}, b"\0" * 8), "the shape of 'x' is not a list of whole numbers"),
        (file_of({"x": ENTRY | {"data_offsets": [8, 0]}}, b"\0" * 8), "does not fill its bytes"),
        (file_of({"x": ENTRY | {"data_offsets": [0, 8, 16]}}, b"\0" * 8), "does not fill its bytes"),
        (file_of({"x": ENTRY}, b"\0" * 4), "its arrays end at byte 8 of 4: it is cut off"),
        (file_of({"x": ENTRY}, b"\0" * 12), "its arrays end at byte 8 of 12"),
        (file_of({"x": ENTRY | {"shape": [2**62], "data_offsets": [0, 2**64]}}), "not a list of whole numbers"),
        (file_of({"x": ENTRY | {"shape": [2**60], "data_offsets": [0, 2**62]}}), f"end at byte {2**62} of 0"),
        (file_of({"x": ENTRY, "y": ENTRY}, b"\0" * 8), r"the numbers of 'y' overlap those of another array"),
        (file_of({"x": ENTRY | {"data_offsets": [4, 12]}}, b"\0" * 12), "the numbers of 'x' leave a hole"),
        (pickle.dumps({"x": [1.0]}, protocol=2) + b"\0" * 99, "it is a PyTorch file .* none of its code was run"),
        (b"PK\x03\x04" + b"\0" * 99, "it is a PyTorch file .* none of its code was run"),
    ],
)
def test_a_file_that_lies_is_refused_in_one_sentence(tmp_path, content, reason):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        safetensors.read(path)
    assert str(error.value).startswith(f"{path} is not a safetensors file") and "\n" not in str(error.value)


def test_a_header_is_not_parsed_beyond_its_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "LONGEST_HEADER", 100)
    path = tmp_path / "w.safetensors"
    path.write_bytes(file_of({f"x{i}": 0 for i in range(50)}))
    with pytest.raises(ValueError, match="more than 100"):
        safetensors.read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        safetensors.read(tmp_path / "none.safetensors")
