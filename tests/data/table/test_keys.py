"""Keys of texts and numbers, and runs of neighbouring ids."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.table import keys

TEXTS = st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=20)


@settings(max_examples=25, deadline=None)
@given(TEXTS, TEXTS)
def test_a_key_depends_on_the_text_alone(before, after):
    texts = pa.array([*before, *after], pa.string())
    whole = keys.of_text(texts)
    assert whole[len(before) :].tolist() == keys.of_text(texts.slice(len(before))).tolist()
    key_of = dict(zip(texts.to_pylist(), whole.tolist(), strict=True))
    assert all((key == 0) == (not text) and 0 <= key < 2**63 for text, key in key_of.items())
    filled = {text for text in key_of if text}
    assert len({key_of[text] for text in filled}) == len(filled)


def test_keys_do_not_change_between_versions():
    """Held-out images depend on them."""
    assert keys.seed_of("max_images 0") == 141644616549079
    assert keys.of_text(pa.array(["abc", "5e0ba1e0-3a5e-4b6a"])).tolist() == [1185548828430034465, 2778417475840565059]
    assert keys.mixed(np.array([0, 1]), seed=7).tolist() == [14232521865600346940, 9648886400068060533]


def test_many_texts_have_as_many_keys():
    texts = pa.array([f"{i:x}-{i * 7919 % 65536:04x}" for i in range(30_000)])
    assert len(np.unique(keys.of_text(texts))) == 30_000


def test_shares_are_even_and_differ_by_seed():
    numbers = np.arange(20_000)
    first, second = (keys.shares(numbers, seed=seed) for seed in (0, 1))
    assert first.min() >= 0 and first.max() < 1
    assert np.histogram(first, 10, (0, 1))[0] == pytest.approx(np.full(10, 2000), abs=150)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03


def test_runs_of_ids():
    ids = np.array([50, 1, 7, 4, 20, 23, 11])
    groups = keys.runs(ids)
    assert groups[1] == groups[2] == groups[3] and groups[4] == groups[5]
    assert len({*groups.tolist()}) == 4
    within = keys.runs(ids, np.array([0, 0, 1, 0, 0, 1, 0]))
    assert within[1] == within[3] != within[2] and within[4] != within[5]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=40, unique=True), st.randoms())
def test_neighbours_are_in_one_run_in_any_order(ids, random):
    groups = dict(zip(ids, keys.runs(np.array(ids)).tolist(), strict=True))
    ranked = sorted(ids)
    for one, other in itertools.pairwise(ranked):
        assert (groups[one] == groups[other]) == (other - one <= keys.NEIGHBOURS)
    shuffled = random.sample(ids, len(ids))
    assert dict(zip(shuffled, keys.runs(np.array(shuffled)).tolist(), strict=True)) == groups


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([77, None, 5]),
        pa.array([77.0, None, 5.0]),
        pa.array([77.0, float("nan"), 5.0]),
        pa.array(["77", "", "5"]),
        pa.array(["77.0", None, "5.0"]),
    ],
)
def test_a_number_has_one_key_whatever_its_column_holds(cells):
    assert keys.of_cells(cells).tolist() == keys.of_cells(pa.array([77, None, 5])).tolist()
    assert keys.of_cells(cells)[1] == 0 and keys.image_keys(cells)[1] == -1


def test_texts_that_look_like_numbers_and_are_not_keep_their_own_keys():
    texts = ["7", "07", "7.5", "-7", "7e0", "18446744073709551000", "18446744073709551001", "7.05"]
    assert len({*keys.of_cells(pa.array(texts)).tolist()}) == len(texts)
