"""The command: what it prints and writes, and that its exit code is what training would say."""

import os
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT
from helpers.encodings import LIMIT, picture

from deitlt_tf.data import decode
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.data import load_splits


def test_a_good_folder(inspect, folder):
    code, printed, report = inspect(f"--data_dir={folder}", "--reweight_epoch=7", "--beta=.9", "--method=deit_lt")
    assert code == 0 and "nothing was found that training would fail at" in printed
    assert report["errors"] == report["warnings"] == report["copies"] == []
    quick, own = report["next"].values()
    assert quick == f"python -m deitlt_tf.quick --data_dir={folder} --workdir=runs/quick" and quick in printed
    assert own == f"python -m deitlt_tf.train --flagfile=folder_small.cfg --data_dir={folder} --workdir=runs/first"
    assert report["classes"] == {"names": ["ant", "bee"], "train": [4, 2], "val": [1, 1], "test": [2, 1]}
    train = report["splits"]["train"]
    assert {key: train[key] for key in ("images", "classes", "missing", "unreadable")} == {
        "images": 6, "classes": 2, "missing": 0, "unreadable": 0
    }  # fmt: skip
    assert train["formats"] == {"PNG": 3, "JPEG": 3}
    assert train["width"] == {"min": 21, "5 %": 21, "median": 23, "95 %": 26, "max": 26}
    assert set(train["height"].values()) == {30}
    assert report["imbalance"] == 2
    assert report["groups"]["shots"]["tail"] == {"classes": 2, "images": 6}
    student = report["weights"]["student"]
    assert student["from_epoch"] == 7 and student["span"] == pytest.approx((1 - 0.9**4) / (1 - 0.9**2))
    assert student["smallest"] + student["largest"] == pytest.approx(2)
    assert "from epoch 7 on" in printed and "train        6        2" in printed
    (folder / "kinds.csv").write_text("class,order\nbee,Hymenoptera\nant,Hymenoptera\n")
    arguments = ("--method=deit", "--imbalance=4", f"--taxonomy_file={folder / 'kinds.csv'}")
    _, printed, report = inspect(f"--data_dir={folder}", *arguments)
    assert report["taxonomy"] == {"class": 2, "order": 1} and "\ntaxonomy: 2 class, 1 order\n" in printed
    assert report["weights"]["student"]["from_epoch"] is None and "never used" in printed
    assert report["classes"]["train"] == [4, 1] and report["imbalance"] == 4


def test_images_that_cannot_be_read(inspect, folder):
    path, large = (folder / "train" / "ant" / name for name in ("1.jpg", "large.png"))
    path.write_bytes(path.read_bytes()[:-90])
    picture(100, 30).save(large)
    arguments = (f"--data_dir={folder}", "--max_megapixels=.001")
    code, printed, report = inspect(*arguments)
    assert code == 1 and "error: training would fail: see 1 error above." in printed
    assert f"2 images of train cannot be read, the first is {path}: cut off" in printed
    limit = "100 x 30 pixels are more than the limit of 1000 (`max_pixels`)"
    assert report["unreadable"]["train"][1] == f"{large}: {limit}" and report["splits"]["train"]["unreadable"] == 2
    code, _, report = inspect(*arguments, "--skip_bad_images")
    assert code == 0 and report["classes"]["train"] == [3, 2] and len(report["warnings"]) == 1


@pytest.mark.slow
def test_decode_finds_what_headers_do_not_show(inspect, folder):
    path = folder / "test" / "ant" / "0.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert inspect(f"--data_dir={folder}")[0] == 0
    code, printed, report = inspect(f"--data_dir={folder}", "--decode")
    assert code == 1 and f"1 image of test cannot be read, the first is {path}: Invalid PNG" in printed
    assert report["splits"]["test"]["formats"] == {"JPEG": 1, "PNG": 1}


def test_what_cannot_be_loaded_at_all_is_one_sentence(inspect, tmp_path):
    code, printed, report = inspect(f"--data_dir={tmp_path / 'nowhere'}")
    assert code == 1 and report is None
    assert printed.startswith(f"error: --data_dir={tmp_path / 'nowhere'} is not a folder: it should hold train/")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["none", "cut", "dangling", "stranger", "empty class", "copy", "no test images"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_exit_code_is_what_training_would_say(inspect, folder, damage, skip, tmp_path):
    damages = {
        "none": lambda: None,
        "cut": lambda: (folder / "test" / "ant" / "1.jpg").write_bytes(b"\xff\xd8\xff"),
        "dangling": lambda: os.symlink(folder / "gone.jpg", folder / "train" / "bee" / "9.jpg"),
        "stranger": lambda: (folder / "test" / "zebra").mkdir(),
        "empty class": lambda: (folder / "train" / "cow").mkdir(),
        "copy": lambda: shutil.copy(folder / "train" / "ant" / "0.png", folder / "test" / "ant" / "9.png"),
        "no test images": lambda: shutil.rmtree(folder / "test" / "bee"),
    }
    damages[damage]()
    arguments = [f"--data_dir={folder}", *(["--skip_bad_images"] if skip else [])]
    code, _, _ = inspect(*arguments)
    recipe = command_line.recipe_of(["train", *arguments])
    try:
        splits = load_splits(folder=tmp_path / "trained", **recipe.data.loading())
        failed = any(decode.bad_images_of(part, max_pixels=LIMIT) for part in (splits.train, splits.val, splits.test))
    except (ValueError, OSError):
        failed = True
    assert bool(code) == failed


@pytest.mark.slow
def test_as_a_process(folder, tmp_path):
    (folder / "train" / "ant" / "1.jpg").write_bytes(b"GIF89a")
    command = [sys.executable, "-m", "deitlt_tf.inspect_data", f"--data_dir={folder}", f"--workdir={tmp_path / 'run'}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: training would fail")
    assert "1.jpg: not a JPEG, PNG, BMP or (not animated) WebP image" in result.stdout
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"inspect.json", "profile.svg"}
    result = subprocess.run([*command, "--skip_bad_images"], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0 and "Traceback" not in result.stderr
