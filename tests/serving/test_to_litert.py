"""LiteRT: the file answers as Keras does, for any batch, and carries its class names."""

import zipfile
from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_run

from deitlt_tf import to_litert
from deitlt_tf.evaluation import rollup
from deitlt_tf.models import interface
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.models import load_model
from deitlt_tf.serving import litert_files


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.finished(tmp_path_factory.mktemp("finished"), teacher=True, taxonomy=tiny_run.TAXONOMY)


@pytest.fixture
def run(program):
    """run(*arguments) -> (exit code, all that was printed)."""
    return partial(program, to_litert, from_workdir=True, takes=to_litert.TAKES)


@pytest.mark.slow
def test_a_run_as_two_files(run, tiny, tmp_path):
    out = tmp_path / "student.tflite"
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--quantize=int8", "--threshold=0.6")
    assert code == 0, printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["student.int8.tflite", "student.tflite"]
    for text in ("float32: logits within", "0 of 36 predictions differ", "mean, int8", "rank: head", "ms at 32"):
        assert text in printed
    model, _ = load_model(tiny / "student.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    for suffix, tolerance in ((".tflite", 1e-5), (".int8.tflite", 0.1)):
        path = out.with_suffix(suffix)
        answer = litert_files.runner(path)
        for count in (5, 1, 3):
            outputs = answer(pixels[:count])
            for head, z in interface.heads(model(pixels[:count].astype(np.float32))).items():
                largest = max(1, np.abs(z).max())
                np.testing.assert_allclose(outputs[f"logits_{head}"], z, atol=tolerance * largest, err_msg=suffix)
            by_rank = rollup.outputs(tf.constant(outputs["probabilities"]), tiny_run.TAXONOMY, 0.6)
            for name, value in by_rank.items():
                np.testing.assert_allclose(outputs[name], value, atol=1e-6, err_msg=f"{suffix} {name}")
        with zipfile.ZipFile(path) as archive:
            assert tuple(archive.read("labels.txt").decode().split()) == tiny_run.CLASS_NAMES
            assert archive.read("class_counts.json") == b"[12, 6, 3]"


@pytest.mark.slow
def test_a_teacher_with_float_pixels_and_none_of_the_data(run, tiny, tmp_path):
    out = tmp_path / "teacher.tflite"
    code, printed = run(
        f"--workdir={tiny}", f"--out={out}", "--weights=teacher", "--input_type=float32", "--check_images=0"
    )
    assert code == 0, printed
    assert "of 64 predictions differ" in printed and "top-1" not in printed
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert litert_files.runner(out)(pixels).keys() == {"logits_cls", "probabilities"}


@pytest.mark.slow
def test_a_file_that_is_not_keras_equal_is_not_left(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(litert_files.OPTIMIZATIONS, "float32", litert_files.OPTIMIZATIONS["int8"])
    code, printed = run(f"--workdir={tiny}", f"--out={tmp_path / 'student.tflite'}", "--check_images=0")
    assert code == 1
    assert "off Keras', more than" in printed.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=ema"], "student_ema.keras: this run has no such finished model"),
        (["--out=student.onnx"], "--out=student.onnx: the name of the file has to end in .tflite."),
        (["--fp16"], "--fp16"),
    ],
)
def test_mistakes_are_told_in_one_sentence(run, tiny, arguments, message):
    code, printed = run(f"--workdir={tiny}", *arguments)
    assert code == 1
    assert "Traceback" not in printed
    assert message in printed.splitlines()[-1]


def test_a_missing_package_is_told_with_the_extra_that_brings_it():
    with (
        pytest.raises(ValueError, match=r"no_such_package is not installed: .*'deitlt_tf\[export\]'"),
        command_line.extra("export"),
    ):
        import no_such_package  # noqa: F401
