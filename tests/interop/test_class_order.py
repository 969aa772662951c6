"""The official order of classes, against numbers of NumPy 1.24.3, which the official environment has."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.interop import class_order

# NumPy 1.24.3: np.argsort(-counts) for counts[i] = (7 i^2 + 3 i) mod 11.
ARGSORT = [23, 1, 45, 41, 34, 30, 8, 19, 12, 39, 36, 28, 25, 17, 47, 6, 3, 14, 21, 43, 32, 10, 15, 38]
ARGSORT += [37, 5, 4, 27, 16, 26, 29, 7, 24, 46, 2, 35, 18, 13, 40, 42, 44, 31, 9, 22, 20, 11, 33, 0]


def test_equal_counts_are_ranked_as_by_numpy_1_24():
    i = np.arange(48)
    order = class_order.official((7 * i**2 + 3 * i) % 11)
    assert np.argsort(order).tolist() == ARGSORT


@pytest.mark.parametrize(
    ("classes", "checksum"), [(100, 1024393535), (365, 1419372258), (1000, 912206919), (8142, 939325452)]
)
def test_long_tails_are_ranked_as_by_numpy_1_24(classes, checksum):
    """CRC of its int64 argsort; only 12, 111, 473 and 6873 classes lie elsewhere than in a stable sort."""
    tail = np.array([int(1280 * (1 / 256) ** (i / (classes - 1))) for i in range(classes)])
    counts = tail[(np.arange(classes) * 7919 + 13) % classes]
    order = class_order.official(counts)
    assert zlib.crc32(np.argsort(order).astype("<i8").tobytes()) == checksum


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=300))
def test_a_class_is_ranked_by_its_count(counts):
    order = class_order.official(counts)
    assert sorted(order) == list(range(len(counts)))
    ranked = np.empty(len(counts), int)
    ranked[order] = counts
    assert (np.diff(ranked) <= 0).all()
    if len(counts) <= class_order.SMALL:  # insertion alone, which is stable
        assert np.argsort(order).tolist() == np.argsort(-np.array(counts), kind="stable").tolist()


def test_an_order_is_read_from_a_file(tmp_path):
    (tmp_path / "order.txt").write_text("2\n0\n1\n")
    order = class_order.read(tmp_path / "order.txt", num_classes=3)
    assert order.tolist() == [2, 0, 1] and order.dtype == np.int64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n1\n", "is no order of 3 classes: it needs each of 0..2 once"),
        ("0\n1\n1\n", "each of 0..2 once"),
        ("1\n2\n3\n", "each of 0..2 once"),
        ("0\n1\ntwo\n", "not a file of one whole number a line"),
        ("0 1 2.0", "not a file of one whole number a line"),
    ],
)
def test_what_is_no_order_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "order.txt").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        class_order.read(tmp_path / "order.txt", num_classes=3)
    assert str(tmp_path / "order.txt") in str(error.value)


@pytest.mark.parametrize("order", [[[0, 1], [2, 3]], [0, 1, 2, 3.0], ["0", "1", "2", "3"], [0, 1, 2], 3])
def test_what_a_checkpoint_calls_an_order_is_checked(order):
    with pytest.raises(ValueError, match="class_map in x is no order of 4 classes"):
        class_order.checked(order, num_classes=4, source="class_map in x")


def test_a_missing_order_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^class_order=.*no such file"):
        class_order.read(tmp_path / "none.txt", num_classes=3)
