"""A run's folder: nothing half-written is ever seen, nothing damaged is ever used, no run is mixed with another."""

import contextlib
import json
import pickle
import resource
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.runs.checkpoints import Checkpoints, Journal
from deitlt_tf.runs.files import UNFINISHED, replacing, write_json, write_text
from deitlt_tf.runs.folder import claim, refuse_other
from deitlt_tf.runs.models import load_model, load_weights, same_classes, save_model, save_weights

NAMES = ("cat", "Hündin", "a,b")


def tiny_model(units: int = 3, inputs: int = 4) -> keras.Model:
    return keras.Sequential([keras.Input([inputs]), keras.layers.Dense(units, bias_initializer="ones")])


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def full_disk(limit: int):
    """No file can grow beyond `limit` bytes: as on a full disk, the system itself refuses to write (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # Python ignores SIGXFSZ
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---- one file --------------------------------------------------------------------------------------------------------


def test_replacing_is_all_or_nothing(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="half-way"), replacing(path) as temporary:
        temporary.write_text("ne")
        assert path.read_text() == "old"
        raise RuntimeError("half-way")
    assert contents(tmp_path) == {"deep/file.txt": b"old"}
    write_text(path, "new")
    assert contents(tmp_path) == {"deep/file.txt": b"new"}


WRITES = {
    "value.json": lambda folder: write_json(folder / "value.json", ["x" * 100_000]),
    "model.keras": lambda folder: save_model(tiny_model(inputs=9_000), folder / "model.keras", class_names=NAMES),
    "best.npz": lambda folder: save_weights(tiny_model(inputs=9_000), folder / "best.npz"),
    "000000002.npz": lambda folder: Checkpoints(folder).save(2, {"w": np.ones(9_000)}, {}),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_leaves_the_old_files_and_names_the_new_one(tmp_path, name):
    write_text(tmp_path / name, "old")
    Checkpoints(tmp_path).save(1, {"w": np.zeros(9)}, {})
    before = contents(tmp_path)
    for limit in (0, 20_000):
        with full_disk(limit), pytest.raises(OSError, match=rf"{name} could not be written \(.*File too large.*\)"):
            WRITES[name](tmp_path)
        assert contents(tmp_path) == before


def test_a_full_disk_stops_the_journal_with_its_name(tmp_path):
    journal = Journal(tmp_path)
    journal.add({"step": 1})
    with full_disk(20), pytest.raises(OSError, match=r"metrics\.jsonl could not be written"):
        journal.add({"step": 2, "note": "x" * 100})
    assert journal.lines() == [{"step": 1}]


# ---- models ----------------------------------------------------------------------------------------------------------


def test_a_model_file_carries_its_class_names(tmp_path):
    model, path = tiny_model(), tmp_path / "model.keras"
    save_model(model, path, class_names=NAMES)
    again, names = load_model(path)
    assert names == NAMES
    for loaded in (again, keras.models.load_model(path)):
        for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_model_file_of_somebody_else_has_no_class_names(tmp_path):
    tiny_model().save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras")[1] is None


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.keras"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "other zip"])
def test_a_damaged_model_is_named(tmp_path, damage):
    path = tmp_path / "model.keras"
    save_model(tiny_model(), path, class_names=NAMES)
    whole = path.read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "not a model")
    path.write_bytes(
        {
            "empty": b"",
            "garbage": bytes(range(256)) * 4,
            "cut": whole[: len(whole) // 2],
            "other zip": (tmp_path / "other.zip").read_bytes(),
        }[damage]
    )
    with pytest.raises(ValueError, match=r"model\.keras is not a readable Keras model") as error:
        load_model(path)
    assert damage == "other zip" or "not a zip file" in str(error.value)


def test_a_model_that_would_run_code_is_refused(tmp_path):
    x = keras.Input([4])
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2)(x)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"model\.keras is not a readable Keras model"):
        load_model(tmp_path / "model.keras")


def test_weights_come_back(tmp_path):
    model, other = tiny_model(), tiny_model()
    save_weights(model, tmp_path / "best.npz")
    load_weights(other, tmp_path / "best.npz")
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_same_classes(tmp_path):
    check = {"path": tmp_path / "teacher.keras"}
    same_classes(NAMES, NAMES, num_outputs=3, **check)
    same_classes(None, NAMES, num_outputs=3, **check)
    with pytest.raises(ValueError, match=r"teacher\.keras has 4 classes, the data 3"):
        same_classes(None, NAMES, num_outputs=4, **check)
    with pytest.raises(ValueError, match=r"teacher\.keras .*class 1 is 'Hündin' there, 'a,b' here"):
        same_classes(NAMES, ("cat", "a,b", "Hündin"), num_outputs=3, **check)


# ---- whose folder ----------------------------------------------------------------------------------------------------


RECIPE = {"lr": 0.001, "drops": ["160:0.01", "180:0.0001"], "data_dir": "a", "note": "x=y"}


def claim_with(folder, *, class_names=NAMES, **changes) -> None:
    recipe = RECIPE | changes
    lines = (f"--{k}={','.join(v) if isinstance(v, list) else v}\n" for k, v in recipe.items())
    claim(folder, recipe, text="".join(lines), class_names=class_names, free={"data_dir"})


def test_a_folder_without_a_checkpoint_is_nobodys_yet(tmp_path):
    claim_with(tmp_path, lr=0.1)
    claim_with(tmp_path)
    assert "--lr=0.001" in (tmp_path / "flags.cfg").read_text()


@pytest.mark.parametrize("kept", ["checkpoints/000000001.npz", "teacher/teacher.keras"])
def test_a_folder_belongs_to_one_recipe(tmp_path, kept):
    folder = tmp_path / "run"
    claim_with(folder)
    write_text(folder / kept, "what a run has come to")
    claim_with(folder)
    with pytest.raises(ValueError, match=r"--lr is '0.001' there and '0.01' here"):
        claim_with(folder, lr=0.01)
    with pytest.raises(ValueError, match=r"--drops is '160:0.01,180:0.0001' there and '160:0.01' here"):
        claim_with(folder, drops=["160:0.01"])
    with pytest.raises(ValueError, match="and 1 more"):
        claim_with(folder, lr=0.01, drops=[], note="", new="flag")
    assert "--lr=0.001" in (folder / "flags.cfg").read_text()


def test_free_flags_may_differ_and_the_newest_is_kept(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    claim_with(tmp_path, data_dir="b")
    assert "--data_dir=b" in (tmp_path / "flags.cfg").read_text()


def test_a_folder_belongs_to_one_set_of_classes(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    before = contents(tmp_path)
    assert (tmp_path / "class_names.txt").read_text().splitlines() == list(NAMES)
    with pytest.raises(ValueError, match=r"other classes: see .*class_names\.txt"):
        claim_with(tmp_path, class_names=NAMES[::-1], data_dir="b")
    assert contents(tmp_path) == before


def test_asking_whether_a_folder_is_free_writes_nothing(tmp_path):
    refuse_other(tmp_path / "run", RECIPE)
    assert contents(tmp_path) == {}
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="--lr"):
        refuse_other(tmp_path, RECIPE | {"lr": 1})
    assert contents(tmp_path) == before


def test_a_flag_that_came_later_had_its_default(tmp_path):
    claim_with(tmp_path)
    Checkpoints(tmp_path).save(1, {}, {})
    refuse_other(tmp_path, RECIPE | {"new": 1}, defaults={"new": 1, "lr": 7, "elsewhere": 3})
    with pytest.raises(ValueError, match="--new is '1' there and '2' here"):
        refuse_other(tmp_path, RECIPE | {"new": 2}, defaults={"new": 1})


def test_a_model_without_its_recipe_is_not_trained_over(tmp_path):
    (tmp_path / "teacher.keras").write_bytes(b"somebody's work")
    with pytest.raises(ValueError, match=r"holds a model but no flags\.cfg"):
        claim_with(tmp_path)
    assert contents(tmp_path) == {"teacher.keras": b"somebody's work"}


def test_what_a_killed_run_left_unfinished_is_swept_away(tmp_path):
    claim_with(tmp_path)
    for folder in (tmp_path, tmp_path / "checkpoints"):
        folder.mkdir(exist_ok=True)
        (folder / f"{UNFINISHED}x.npz").write_bytes(b"half")
    (tmp_path / "mine.txt").write_text("keep")
    claim_with(tmp_path)
    assert set(contents(tmp_path)) == {"flags.cfg", "class_names.txt", "mine.txt"}


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
