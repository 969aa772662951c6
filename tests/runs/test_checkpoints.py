"""Checkpoints and the journal: the newest whole one wins, nothing damaged is used, nothing is unpickled."""

import json
import pickle

import numpy as np
import pytest
from helpers.files import full_disk
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.runs.checkpoints import Checkpoints, Journal

# ---- checkpoints -----------------------------------------------------------------------------------------------------

SHAPES = {"0 w": (2, 3), "1 iteration": ()}


def arrays(step: int) -> dict[str, np.ndarray]:
    return {"0 w": np.full([2, 3], step, np.float32), "1 iteration": np.array(step, np.int64)}


def saved(folder, *steps: int) -> Checkpoints:
    said = []
    checkpoints = Checkpoints(folder, say=said.append)
    checkpoints.said = said
    for step in steps:
        checkpoints.save(step, arrays(step), {"sums": {"loss": step / 3}})
    return checkpoints


def assert_is(found, step: int) -> None:
    assert found[0] == step and found[2] == {"sums": {"loss": step / 3}}  # the note is exact to the last bit
    for name, expected in arrays(step).items():
        np.testing.assert_array_equal(found[1][name], expected)
        assert found[1][name].dtype == expected.dtype


def test_the_newest_of_the_last_two_checkpoints_wins(tmp_path):
    assert saved(tmp_path).restore(SHAPES) is None
    checkpoints = saved(tmp_path, 9, 10, 1000)
    assert [path.name for path in checkpoints.files()] == ["000000010.npz", "000001000.npz"]
    assert_is(checkpoints.restore(SHAPES), 1000)
    assert checkpoints.said == []


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    checkpoints = saved(tmp_path_factory.mktemp("run"), 1, 2)
    return checkpoints, checkpoints.files()[-1], checkpoints.files()[-1].read_bytes()


@settings(deadline=None, max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_checkpoint_cut_anywhere_is_passed_over_loudly(two_checkpoints, share):
    checkpoints, path, whole = two_checkpoints
    checkpoints.said.clear()
    path.write_bytes(whole[: int(share * len(whole))])
    assert_is(checkpoints.restore(SHAPES), 1)
    assert len(checkpoints.said) == 1 and str(path) in checkpoints.said[0] and "damaged" in checkpoints.said[0]


def test_a_flipped_bit_is_noticed_or_harmless(two_checkpoints):
    checkpoints, path, whole = two_checkpoints
    for position in range(0, len(whole), 3):
        checkpoints.said.clear()
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert_is(checkpoints.restore(SHAPES), 1 if checkpoints.said else 2)


def test_without_a_whole_checkpoint_there_is_none(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    for path in checkpoints.files():
        path.write_bytes(b"")
    assert checkpoints.restore(SHAPES) is None and len(checkpoints.said) == 2


@pytest.mark.parametrize("shapes", [SHAPES | {"0 w": (3, 2)}, SHAPES | {"2 b": (1,)}, {"0 w": (2, 3)}])
def test_a_checkpoint_of_another_model_is_refused(tmp_path, shapes):
    with pytest.raises(ValueError, match=r"000000002\.npz is of another model"):
        saved(tmp_path, 1, 2).restore(shapes)


class Bomb:
    """Unpickled, it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_is_ever_unpickled(tmp_path):
    checkpoints, went_off = saved(tmp_path, 1, 2), tmp_path / "went off"
    note = np.array("{}")
    np.savez(checkpoints.files()[-1], **{"0 w": np.array([Bomb(went_off)], object), "note": note})
    assert_is(checkpoints.restore(SHAPES), 1)
    checkpoints.files()[-1].write_bytes(pickle.dumps(Bomb(went_off)))
    assert_is(checkpoints.restore(SHAPES), 1)
    assert len(checkpoints.said) == 2 and not went_off.exists()


# ---- journal ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_journal_with_its_name(tmp_path):
    journal = Journal(tmp_path)
    journal.add({"step": 1})
    with full_disk(20), pytest.raises(OSError, match=r"metrics\.jsonl could not be written"):
        journal.add({"step": 2, "note": "x" * 100})
    assert journal.lines() == [{"step": 1}]


def test_the_journal_is_rewound_to_a_step(tmp_path):
    journal = Journal(tmp_path)
    assert journal.lines() == []
    lines = [{"step": step, "loss": 0.1 * step, "note": "ü"} for step in (5, 10, 15)]
    for line in lines:
        journal.add(line)
    assert journal.lines() == lines
    assert [json.loads(text) for text in journal.path.read_text().splitlines()] == lines
    journal.rewind(10)
    assert journal.lines() == lines[:2]
    journal.add(lines[2])
    assert journal.lines() == lines
    journal.rewind(0)
    assert journal.lines() == []


def test_a_half_written_last_line_is_dropped(tmp_path):
    journal = Journal(tmp_path)
    for step in (1, 2, 3):
        journal.add({"step": step})
    whole = journal.path.read_text()
    for cut in range(len(whole)):
        journal.path.write_text(whole[:cut])
        journal.rewind(3)
        journal.add({"step": 4})
        *kept, last = journal.lines()
        assert last == {"step": 4} and [line["step"] for line in kept] == [1, 2, 3][: len(kept)]
        assert len(kept) >= whole[:cut].count("\n")
