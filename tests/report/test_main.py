"""The report as a user runs it, on tiny finished workdirs of random weights; and in a browser, where there is one."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_run
from helpers.programs import COLOURS, picture
from helpers.report_pages import EPOCHS, EVIL, journal, read
from helpers.tiny_run import finished

from deitlt_tf.evaluation import metrics
from deitlt_tf.report import __main__ as report
from deitlt_tf.report import sections
from deitlt_tf.runs.files import UNFINISHED, write_text
from deitlt_tf.runs.models import load_model, save_model

# tf.data stays in graphs: it says so whenever functions run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Tracing takes longer than a dozen images."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def make(folder: Path, *compared: Path) -> None:
    """The command on one run, or on several with --compare."""
    compare = [str(other) for other in (folder, *compared)] if compared else []
    report.main(tiny_run.recipe_of(folder), compare=compare, probe_images=6)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run with teacher, journal, and a class of a hostile name, reported."""
    root = tmp_path_factory.mktemp("report")
    folder = finished(root, f"--epochs={EPOCHS}", "--reweight_epoch=2", teacher=True)
    for name in ("student", "teacher"):
        model, names = load_model(folder / f"{name}.keras")
        save_model(model, folder / f"{name}.keras", class_names=(EVIL, *names[1:]))
    for split in ("train", "test"):
        (root / "images" / split / "blue").rename(root / "images" / split / EVIL)
    journal(folder)
    make(folder)
    return folder


@pytest.mark.slow
def test_the_page_holds_everything_and_loads_nothing(run):
    numbers, page = read(run)
    assert all(source.startswith("data:") for source in page.sources)
    assert "script" not in page.tags and EVIL in page.words
    assert not [image for image in page.images if not image.get("alt")]
    assert all(tag in page.tags for tag in ("main", "table", "h1", "title"))
    for words in ("student CLS", "student DIST", "student mean", "teacher", "re-weighting", "1,000 resamples"):
        assert words.replace("1,000", "1000") in page.words, words
    assert "Left out" not in page.words and "metrics.jsonl" not in page.words
    assert set(numbers) == {
        *(
            "run",
            "groups",
            "table",
            "taxonomy",
            "classes",
            "curves",
            "probes",
            "confusions",
            "calibration",
            "shifts",
            "duel",
            "mixed",
            "clients",
        )
    }
    assert not list(run.glob(UNFINISHED + "*"))


@pytest.mark.slow
def test_its_numbers_are_those_of_evaluate(run):
    numbers, page = read(run)
    opened = tiny_run.run_of(run)
    student, _ = load_model(run / "student.keras")
    settings = {"eval_resize": opened.eval_resize["student"], "max_pixels": opened.max_pixels}
    hits = metrics.count(student, opened.splits.test, num_classes=3, title="again", **settings)
    expected = metrics.accuracies(hits, np.array([12, 6, 3]))
    for convention, rows in expected.items():
        for head, row in rows.items():
            bounds = numbers["table"][convention][f"student {sections.HEADS[head]}"]
            for group, value in row.items():
                assert (bounds[group] or {"value": None})["value"] == (value if value is None else pytest.approx(value))
                assert value is None or f"{value:.1f}" in page.words
    assert [c["train"] for c in numbers["classes"]] == [12, 6, 3]
    overall = np.mean([c["mean"] for c in numbers["classes"]])
    assert numbers["shifts"]["student mean"]["uniform"] == pytest.approx(overall)
    assert numbers["duel"]["images"].keys() == {"DIST alone", "CLS alone", "both", "neither"}
    assert sum(numbers["duel"]["images"].values()) == 4
    assert sum(numbers["mixed"]["says"].values()) == pytest.approx(1)
    for key in ("labels", "answers"):
        assert sum(group[key] for group in numbers["mixed"]["groups"].values()) == pytest.approx(1)
    for row in numbers["confusions"]["ends"].values():
        assert sum(row.values()) == pytest.approx(1)


@pytest.mark.slow
def test_curves_are_the_journal_with_the_reweighting_marked(run):
    numbers, _ = read(run)
    history = numbers["curves"]
    assert history["epoch"] == [1, 2, 3, 4] and history["reweight_epoch"] == 2 and history["split"] == "test"
    assert history["curves"]["loss"]["loss"] == [2.0, 1.75, 1.5, 1.25]
    assert history["curves"]["cosine"]["cosine"] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert history["curves"]["accuracy, overall"]["DIST"] == [None, 41.0, None, 43.0]
    assert "accuracy, tail" not in history["curves"]


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(run):
    before = [(run / f"report.{kind}").read_bytes() for kind in ("html", "json")]
    make(run)
    assert before == [(run / f"report.{kind}").read_bytes() for kind in ("html", "json")]


@pytest.mark.slow
def test_a_balanced_set_is_reported_without_head_and_tail(tmp_path):
    folder = finished(tmp_path, teacher=True)
    journal(folder)
    for name in COLOURS:
        for path in sorted((tmp_path / "images" / "train" / name).iterdir())[3:]:
            path.unlink()
    make(folder)
    numbers, page = read(folder)
    assert "rank: the classes are about equally frequent (3 images each): there is no head and no tail" in page.words
    row = numbers["table"]["paper"]["student mean"]
    assert row["head"] is row["mid"] is row["tail"] is None and row["balanced"]["value"] == row["overall"]["value"]
    assert numbers["confusions"] is numbers["duel"] is None and numbers["mixed"]["groups"] == {}
    assert "3 training images)" in page.words and "By group" not in page.words  # the rollouts' captions
    assert "groups of the paper" not in page.words


def without(folder: Path, copy: Path, *names: str) -> Path:
    shutil.copytree(folder, copy)
    for name in names:
        (copy / name).unlink()
    return copy


@pytest.mark.slow
def test_an_imported_checkpoint_leaves_out_what_it_has_not(run, tmp_path):
    folder = without(run, tmp_path / "imported", "teacher.keras", "metrics.jsonl", "results.json", "report.html")
    make(folder)
    numbers, page = read(folder)
    assert numbers["mixed"] is None and not numbers["curves"]["curves"]
    assert page.words.count("Left out") == 2 and "has no teacher.keras" in page.words


@pytest.mark.slow
def test_a_plain_vit_and_beside_a_student(run, tmp_path):
    folder = finished(tmp_path / "plain", "--method=vit")
    journal(folder, heads=("cls",))
    make(folder)
    numbers, page = read(folder)
    assert set(numbers["table"]["paper"]) == {"ViT"} and numbers["duel"] is None
    assert numbers["curves"]["reweight_epoch"] is None and set(numbers["curves"]["curves"]["loss"]) == {"loss"}
    assert "only one head" not in page.words and "DIST" not in page.words

    student = finished(tmp_path / "student", teacher=True)
    shutil.copytree(folder, student / "vit")
    make(student)
    numbers, _ = read(student)
    assert next(iter(numbers["table"]["paper"])) == "ViT" and set(numbers["probes"]["models"]) == {"ViT", "student"}


@pytest.mark.slow
def test_runs_are_compared_in_pairs_and_only_on_the_same_images(run, tmp_path):
    other = without(run, tmp_path / "other")
    student, names = load_model(other / "student.keras")
    head = student.get_layer("head")
    head.kernel.assign(-head.kernel)
    save_model(student, other / "student.keras", class_names=names)
    make(run, other)
    numbers, page = read(run, "comparison")
    assert numbers["compared"]["reference"] == "run" and list(numbers["table"]["shots"]) == [
        *(f"{name} {head}" for name in ("run", "other") for head in ("CLS", "DIST", "mean"))
    ]
    differences = numbers["compared"]["differences"]["other"]
    table = numbers["table"]["paper"]
    for head in ("CLS", "DIST", "mean"):
        for group in ("overall", "head", "mid", "tail"):
            gap = table[f"other {head}"][group]["value"] - table[f"run {head}"][group]["value"]
            assert differences[head]["paper"][group]["value"] == pytest.approx(gap)
    assert differences["DIST"]["paper"]["overall"] == {"value": 0, "low": 0, "high": 0}
    assert "Differences from run" in page.words and len(page.images) == 3

    with pytest.raises(ValueError, match="names one run"):
        make(run, run)
    plain = finished(tmp_path / "plain", "--method=vit")
    with pytest.raises(ValueError, match=f"{plain} cannot be compared with {run}: their classes differ"):
        make(run, plain)
    twin = finished(tmp_path / "twin")
    make(plain, twin)  # the same files elsewhere
    numbers, _ = read(plain, "comparison")
    assert next(iter(numbers["compared"]["differences"].values())).keys() == {"CLS", "DIST", "mean"}
    picture(COLOURS["red"], 9).save(tmp_path / "twin" / "images" / "test" / "red" / "9.png")
    with pytest.raises(ValueError, match="it has 13 test images, the other 12"):
        make(plain, twin)


def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    write_text(folder / "flags.cfg", f"--workdir={folder}\n")
    for arguments, words in (
        ([f"--workdir={folder}"], "holds no finished student"),
        ([f"--workdir={tmp_path}"], f"--workdir={tmp_path} is not the folder of a run"),
        ([], "--workdir is missing"),
    ):
        monkeypatch.setattr(sys, "argv", ["report", *arguments])
        with pytest.raises(SystemExit, match="1"):
            report.program()
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and words in printed and printed.count("\n") == 1


def test_compare_alone_takes_its_first_run_as_the_workdir():
    assert report.with_workdir(["report", "--compare=a,b"]) == ["report", "--compare=a,b", "--workdir=a"]
    assert report.with_workdir(["report", "--compare=a,b", "-workdir=c"]) == ["report", "--compare=a,b", "-workdir=c"]
    assert report.with_workdir(["report", "--seed=1"]) == ["report", "--seed=1"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_without_errors_or_network(run, browser, width, tmp_path):
    requests, messages = [], []
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(f"file://{run}/report.html")
    assert not messages
    assert [url for url in requests if not url.startswith("data:")] == [f"file://{run}/report.html"]
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables scroll
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert re.match(rb"%PDF", (tmp_path / "report.pdf").read_bytes())
