"""What version 0.1.0 wrote: an interrupted run goes on from its checkpoint, and every command reads a finished one.

The files are in tests/golden/run_0_1_0.zip; its README says what they are.
"""

import json
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import GOLDEN

from deitlt_tf import evaluate, train
from deitlt_tf.demo import __main__ as demo
from deitlt_tf.evaluation import tables
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.report import __main__ as report
from deitlt_tf.runs import finished


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The current folder, with begun/ and finished/ in it: their flags.cfg name them so."""
    with zipfile.ZipFile(GOLDEN / "run_0_1_0.zip") as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_results(folder):
    return json.loads((folder / "results.json").read_text())


def read_journal(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(printed):
    """The rows of the printed tables, without the column "balanced", which version 0.1.0 did not have."""
    rows = [line.split() for line in printed.splitlines() if line.startswith(("teacher ", "student ", "EMA "))]
    return [row[:-4] + row[-3:] for row in rows]


def flattened(values, path=""):
    if not isinstance(values, dict):
        return {path: values}
    return {name: value for key in values for name, value in flattened(values[key], f"{path}/{key}").items()}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_its_end(run, runs):
    """Not to the same weights as in 0.1.0: the images of an epoch come in another order, which the run says."""
    code, printed = run(train, "--flagfile=begun/flags.cfg")
    assert code == 0, printed
    assert "teacher.keras is there, from the same recipe" in printed
    assert "student: going on from step 19 of 36" in printed
    assert "begun holds a run of version 0.1.0: from here on its images come in another order" in printed
    ours, theirs = (flattened(read_results(runs / name)) for name in ("begun", "finished"))
    assert theirs.keys() <= ours.keys()
    of_teacher = {name: value for name, value in theirs.items() if name.startswith("/teacher/")}
    assert of_teacher and {name: ours[name] for name in of_teacher} == pytest.approx(of_teacher, abs=1e-6)

    lines, expected = read_journal(runs / "begun"), read_journal(runs / "finished")
    assert lines[:3] == expected[:3] and len(lines) == len(expected) == 6
    for line, other in zip(lines, expected, strict=True):
        assert (line["step"], line["lr"]) == (other["step"], pytest.approx(other["lr"]))
        assert line["loss"] == pytest.approx(other["loss"], rel=0.03)
    assert lines[-1]["loss"] < lines[2]["loss"]
    for name in ("student.keras", "student_ema.keras", "teacher.keras"):
        models = [keras.models.load_model(runs / folder / name) for folder in ("begun", "finished")]
        for weight, other in zip(*(model.weights for model in models), strict=True):
            np.testing.assert_allclose(weight, other, atol=0.02, err_msg=f"{name} {weight.path}")


def test_an_interrupted_run_is_still_of_its_recipe_alone(run, runs):
    code, printed = run(train, "--flagfile=begun/flags.cfg", "--lr=2e-3")
    assert code == 1 and "--lr is '0.001' there and '0.002' here" in printed


def test_a_finished_run_is_evaluated_to_the_same_table(run, runs, capsys):
    results, rows = read_results(runs / "finished"), {}
    for row, name in {"teacher": "teacher", "student": "raw", "EMA": "ema"}.items():
        rows |= tables.rows_of(row, results[name])
    tables.print_tables(rows, np.array(results["class_counts"]))
    expected = table(capsys.readouterr().out)
    code, printed = run(evaluate, "--workdir=finished")
    assert code == 0 and len(expected) == 14 and table(printed) == expected, printed


@pytest.mark.parametrize("weights", [name for name in finished.FILES if name != "best"])  # its best.npz was no model
def test_finished_networks_answer(runs, weights):
    model, names, counts, _ = finished.load(runs / "finished", weights=weights)
    assert names == tuple("0123456789") and counts.tolist() == read_results(runs / "finished")["class_counts"]
    logits = model(np.zeros([2, 16, 16, 3], np.uint8))
    assert {tuple(x.shape) for x in keras.tree.flatten(logits)} == {(2, 10)}


@pytest.fixture
def eagerly():
    """Tracing takes longer than the few images of a report."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
def test_a_finished_run_is_reported(program, runs):
    arguments = ("--workdir=finished", "--probe_images=4")
    code, printed = program(report, *arguments, from_workdir=True, takes=("compare", "probe_images"))
    assert code == 0, printed
    assert (runs / "finished" / "report.html").stat().st_size > 10_000
    assert json.loads((runs / "finished" / "report.json").read_text())


def test_a_finished_run_is_shown_in_the_demo(runs):
    recipe = recipe_of(["demo", "--workdir=finished"], from_workdir=True)
    served = demo.contents(recipe, weights="ema", max_pixels=10**6)
    facts = json.loads(served["/facts.json"].body)
    assert facts["class_names"] == list("0123456789") and facts["image_size"] == 16
    assert len(served["/network.onnx"].body) > 10_000


def test_a_finished_run_is_exported(program, runs):
    from deitlt_tf import to_onnx

    arguments = ("--workdir=finished", "--check_images=20")
    code, printed = program(to_onnx, *arguments, from_workdir=True, takes=to_onnx.TAKES)
    assert code == 0, printed
    assert list((runs / "finished").glob("*.onnx"))
