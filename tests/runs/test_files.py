"""Atomic writes: a file is whole or not there, on a full disk, too."""

import numpy as np
import pytest
from helpers.files import NAMES, contents, full_disk, tiny_model

from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.files import replacing, write_json, write_text
from deitlt_tf.runs.models import save_model, save_weights


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
