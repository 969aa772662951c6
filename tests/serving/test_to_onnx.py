"""to_onnx as a user runs it: files that are not the network's equal never get a name, mistakes are one sentence."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import tiny_run

from deitlt_tf import to_onnx
from deitlt_tf.evaluation import run as runs
from deitlt_tf.models import interface
from deitlt_tf.runs.models import load_model, save_model
from deitlt_tf.serving import onnx_files
from deitlt_tf.serving.served import load_served


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.finished(tmp_path_factory.mktemp("finished"), teacher=True)


@pytest.fixture
def run(program):
    """run(*arguments) -> (exit code, everything that was printed)."""
    return partial(program, to_onnx, from_workdir=True, takes=to_onnx.TAKES)


def evaluated(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The test images in the view of `evaluate`, and the student's logits for them."""
    model, _ = load_model(folder / "student.keras")
    ((images, _, _),) = runs.test_batches(tiny_run.run_of(folder), model, batch=12).as_numpy_iterator()
    return images, {name: z.numpy() for name, z in interface.heads(model(images.astype(np.float32))).items()}


def with_weights_in_half_precision(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The student's logits, computed in float32, where each weight is the float16 next to it."""
    model, _ = load_model(folder / "student.keras")
    model.set_weights([weight.astype(np.float16).astype(np.float32) for weight in model.get_weights()])
    return {name: z.numpy() for name, z in interface.heads(model(images.astype(np.float32))).items()}


def spread(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def test_a_run_as_files_of_three_kinds(run, tiny, tmp_path):
    out = tmp_path / "new" / "student.onnx"
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--quantize=int8", "--fp16")
    assert code == 0, printed
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "student.fp16.onnx", "student.int8.onnx", "student.onnx",
    ]  # fmt: skip
    for text in ("float32: logits within", "0 of 36 predictions differ", "mean, int8", "rank: head", "ms at 32"):
        assert text in printed
    images, expected = evaluated(tiny)
    rounded = with_weights_in_half_precision(tiny, images)
    for suffix in (".onnx", ".fp16.onnx", ".int8.onnx"):
        outputs = onnx_files.runner(out.with_suffix(suffix))(images)
        for head, z in expected.items():
            error = outputs[f"logits_{head}"] - z
            if suffix == ".fp16.onnx":
                # Each product has its weights rounded, its other factor, and its result: errors of one size, which add
                # up to about twice that of the weights alone (1.5 to 2.5 measured, here and on a trained network).
                assert 0 < spread(error) < 4 * spread(rounded[head] - z), head
            else:
                tolerance = {".onnx": 1e-5, ".int8.onnx": 0.1}[suffix]
                assert np.abs(error).max() < tolerance * max(1, np.abs(z).max()), (suffix, head)
                assert suffix == ".onnx" or np.any(error)
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(out).metadata_props}
    assert metadata["class_names"] == list(tiny_run.CLASS_NAMES)
    assert metadata["class_counts"] == list(tiny_run.CLASS_COUNTS)
    assert (metadata["image_size"], metadata["eval_resize"], metadata["heads"]) == (8, 0, "all")


def test_a_file_that_is_not_keras_equal_is_not_left_and_the_old_one_stays(run, tiny, tmp_path, monkeypatch):
    def damaged(model, path):
        (weight,) = (w for w in model.graph.initializer if w.name == "head.bias")
        weight.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(0.01), weight.name)
        )
        onnx_files.write_float32(model, path)

    out = tmp_path / "student.onnx"
    out.write_text("the old one")
    monkeypatch.setitem(onnx_files.WRITERS, "float32", damaged)
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--check_images=0", "--fp16")
    assert code == 1
    assert "a logit is 1.0e-02 off Keras', more than 1e-04" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
    assert out.read_text() == "the old one"


@pytest.mark.slow
def test_a_network_too_large_for_half_precision_is_refused(run, tiny, tmp_path):
    model, names = load_model(tiny / "student.keras")
    model.get_layer("blocks.0").fc1.kernel.assign(1e4 * model.get_layer("blocks.0").fc1.kernel)
    for name in ("flags.cfg", "results.json"):
        (tmp_path / name).write_text((tiny / name).read_text())
    save_model(model, tmp_path / "student.keras", class_names=names)
    before = sorted(tmp_path.iterdir())
    code, printed = run(f"--workdir={tmp_path}", "--check_images=0", "--fp16")
    assert code == 1
    assert "student.fp16.onnx: logits are not finite; this network does not fit into that precision" in printed
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=ema"], "student_ema.keras: this run has no such finished model"),
        (["--out=student.tflite"], "--out=student.tflite: the name of the file has to end in .onnx."),
        (["--weights=teacher", "--heads=dist"], "has one head; choose --heads=all or cls."),
        (["--weights=teacher", "--prior=uniform"], "--prior is for the student"),
        (["--prior=nowhere.txt"], "--prior=nowhere.txt: neither uniform nor training"),
        (["--weights=teacher", "--quantize=int8", "--check_images=0"], "--quantize=int8 is for transformers"),
        (["--data_dir=/nonexistent"], "/nonexistent"),
        (["--top_k=3"], "--top_k"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_leave_no_file(run, tiny, arguments, message):
    before = sorted(tiny.rglob("*"))
    code, printed = run(f"--workdir={tiny}", *arguments)
    assert code == 1
    assert "Traceback" not in printed
    assert message in printed.splitlines()[-1]
    assert sorted(tiny.rglob("*")) == before


@pytest.mark.slow
def test_other_classes_than_the_datas_are_refused(run, tiny, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    model, _ = load_model(tiny / "student.keras")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "flags.cfg").write_text((tiny / "flags.cfg").read_text())
    save_model(model, folder / "student.keras", class_names=("red", "green", "blue"))
    code, printed = run(f"--workdir={folder}")
    assert code == 1
    assert "class 0 is 'red' there, 'blue' here" in printed


@pytest.mark.slow
def test_a_teacher_and_random_pixels(run, tiny, tmp_path):
    out = tmp_path / "teacher.onnx"
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--weights=teacher", "--fp16", "--check_images=0")
    assert code == 0, printed
    assert "of 64 predictions differ" in printed and "top-1" not in printed
    assert [output.name for output in onnx.load(out).graph.output] == ["logits_cls", "probabilities"]


@pytest.mark.slow
def test_prior_moves_the_mean_and_nothing_else(run, tiny, tmp_path):
    files = []
    images, _ = evaluated(tiny)
    for prior in ("", "uniform"):
        out = tmp_path / f"prior_{prior}.onnx"
        code, printed = run(f"--workdir={tiny}", f"--out={out}", f"--prior={prior}", "--check_images=3")
        assert code == 0, printed
        files.append(onnx_files.runner(out)(images))
    plain, adjusted = files
    moved = adjusted["logits_mean"] - plain["logits_mean"]
    served = load_served(tiny_run.recipe_of(tiny), weights="student", prior="uniform")
    np.testing.assert_allclose(moved, np.tile(served.adjustment, (12, 1)), atol=1e-5)
    assert np.ptp(moved) > 0.1
    for head in ("cls", "dist"):
        np.testing.assert_array_equal(plain[f"logits_{head}"], adjusted[f"logits_{head}"])
