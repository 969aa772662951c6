"""What the tests of inspect_data share: the command, and a folder of images without a mistake."""

import json
import shutil

import pytest
from helpers.encodings import picture

from deitlt_tf.inspect_data import __main__ as inspect_data
from deitlt_tf.inspect_data import summary


@pytest.fixture
def inspect(program, monkeypatch, tmp_path):
    """inspect(*arguments) -> (exit code, all that was printed, the JSON report or None)."""

    def call(*arguments):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        # the picture has its own test: it would take half of the time of each
        monkeypatch.setattr(summary, "plot", lambda counts, path: path.write_text("plotted"))
        code, printed = program(inspect_data, f"--workdir={folder}", *arguments, takes=("decode",))
        path = folder / "inspect.json"
        return code, printed, json.loads(path.read_text()) if path.is_file() else None

    return call


@pytest.fixture
def folder(tmp_path):
    """train/ with 4 + 2 images of two classes, val/ with 1 + 1, test/ with 2 + 1; each image another one."""
    root, seed = tmp_path / "images", 0
    for split, sizes in (("train", (4, 2)), ("val", (1, 1)), ("test", (2, 1))):
        for name, size in zip(("ant", "bee"), sizes, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(size):
                seed += 1
                picture(20 + seed, 30, seed=seed).save(root / split / name / f"{i}.{'jpg' if i % 2 else 'png'}")
    return root
