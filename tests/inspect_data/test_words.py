"""Counts and lists in sentences."""

import numpy as np
import pytest

from deitlt_tf.inspect_data.words import number_of, some_of


@pytest.mark.parametrize(
    ("count", "word", "text"),
    [(1, "image", "1 image"), (0, "image", "0 images"), (2, "class", "2 classes"), (1, "class", "1 class")],
)
def test_a_count_and_its_word_agree(count, word, text):
    assert number_of(count, word) == text


def test_a_long_list_is_cut_off():
    names = np.array([f"n{i}" for i in range(12)], object)
    assert some_of(names[:2], "class") == "2 classes (n0, n1)"
    assert some_of(names, "class") == f"12 classes ({', '.join(names[:10])}, ...)"
