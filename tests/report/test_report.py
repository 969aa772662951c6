"""The report as a user runs it, on tiny finished workdirs of random weights; and in a browser, where there is one."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from deitlt_tf.training.views import measure_model
from helpers.programs import COLOURS, picture
from helpers.tiny_run import finished

from deitlt_tf.evaluation import metrics, predictions
from deitlt_tf.recipes import command_line
from deitlt_tf.report import __main__ as report
from deitlt_tf.report import pages, sections
from deitlt_tf.report.numbers import __doc__, opened, side_by_side, write
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.files import UNFINISHED, write_text
from deitlt_tf.runs.models import load_model, save_model

# tf.data stays in graphs: it says so whenever functions run eagerly.
pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")

EPOCHS = 4
EVIL = "<script>alert($1)<$script>"  # a folder's name may hold all but a slash


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Tracing takes longer than a dozen images."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def flags_for(folder: Path, *arguments: str) -> SimpleNamespace:
    return command_line.parse(["report", f"--workdir={folder}", "--probe_images=6", *arguments], from_workdir=True)


def journal(folder: Path, *, heads=("cls", "dist", "mean")) -> None:
    """metrics.jsonl as `train` writes it, evaluated in every second epoch."""
    lines = []
    for epoch in range(EPOCHS):
        line = {"step": 3 * epoch + 3, "epoch": epoch, "lr": 0.1, "loss": 2.0 - epoch / 4}
        line |= (
            {"cls_loss": 1.9, "dist_loss": 1.8, "agreement": 0.4, "cosine": 0.9 - epoch / 10} if len(heads) > 1 else {}
        )
        if epoch % 2:
            row = {"overall": 40.0 + epoch, "head": 80.0, "mid": 30.0, "tail": None}
            line |= metrics.flatten({"paper": dict.fromkeys(heads, row)}, prefix="test/raw")
        lines.append(json.dumps(line) + "\n")
    write_text(folder / "metrics.jsonl", "".join(lines))


class Page(HTMLParser):
    """Tags, words, and what a page would load."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.words, self.images, self.sources = [], "", [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        self.sources += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "img":
            self.images.append(attributes)

    def handle_data(self, data):
        self.words += data


def read(folder: Path, name: str = "report") -> tuple[dict, Page]:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return (
        json.loads((folder / f"{name}.json").read_text(), parse_constant=refuse),
        Page((folder / f"{name}.html").read_text(encoding="ascii")),
    )


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
    report.main(flags_for(folder))
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
            "classes",
            "curves",
            "probes",
            "confusions",
            "calibration",
            "shifts",
            "duel",
            "mixed",
        )
    }
    assert not list(run.glob(UNFINISHED + "*"))


@pytest.mark.slow
def test_its_numbers_are_those_of_evaluate(run):
    numbers, page = read(run)
    flags = flags_for(run)
    splits = load_splits(flags, folder=run)
    student, _ = load_model(run / "student.keras")
    expected = measure_model(student, splits.test, flags, class_counts=np.array([12, 6, 3]), title="again")
    for convention, rows in expected.items():
        for head, row in rows.items():
            found = numbers["table"][convention][f"student {sections.HEADS[head]}"]
            for group, value in row.items():
                assert (found[group] or {"value": None})["value"] == (value if value is None else pytest.approx(value))
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
    found = numbers["curves"]
    assert found["epoch"] == [1, 2, 3, 4] and found["reweight_epoch"] == 2 and found["split"] == "test"
    assert found["curves"]["loss"]["loss"] == [2.0, 1.75, 1.5, 1.25]
    assert found["curves"]["cosine"]["cosine"] == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert found["curves"]["accuracy, overall"]["DIST"] == [None, 41.0, None, 43.0]
    assert "accuracy, tail" not in found["curves"]


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(run):
    before = [(run / f"report.{kind}").read_bytes() for kind in ("html", "json")]
    report.main(flags_for(run))
    assert before == [(run / f"report.{kind}").read_bytes() for kind in ("html", "json")]


def by_hand(seed: int | None = None) -> predictions.Predictions:
    """Seven answers of two heads; with a seed, 300 random ones over 60 classes, with a mean."""
    if seed is not None:
        draw = np.random.default_rng(seed)
        labels = np.arange(300) % 60
        predicted = {
            head: np.where(draw.random(300) < 0.6, labels, draw.integers(0, 60, 300)) for head in sections.HEADS
        }
        return predictions.Predictions(labels, predicted, {head: draw.random(300) for head in predicted})
    labels = np.array([0, 0, 1, 2, 2, 2, 2])
    predicted = {"cls": np.array([0, 0, 1, 0, 0, 2, 1]), "dist": np.array([0, 1, 1, 2, 2, 0, 1])}
    return predictions.Predictions(labels, predicted, {head: np.linspace(0.1, 0.9, 7) for head in predicted})


def test_findings_of_tail_images_are_counted_by_hand():
    given, counts = by_hand(), np.array([90, 30, 3])
    found = sections.duel(given, counts, most=1)
    assert found["images"] == {"DIST alone": 2, "CLS alone": 1, "both": 0, "neither": 1}
    assert found["shown"] == {"DIST alone": [4], "CLS alone": [5]}
    lost = sections.confusions(given, counts, ("a", "b", "c"))
    assert lost["ends"]["cls"] == {"right": 0.25, "head": 0.5, "mid": 0.25, "tail": 0.0}
    assert lost["classes"][0]["taken_for"]["cls"][0] == {"name": "a", "train": 90, "share": 0.5}
    other = predictions.Predictions(given.labels, {"cls": given.labels}, {"cls": np.ones(7)})
    compared = sections.compared(given, other, counts, resamples=20, seed=0, level=0.95)
    assert compared["CLS"]["paper"]["tail"]["value"] == 75 and compared["DIST"]["paper"]["tail"]["value"] == 50


def test_a_comparison_of_hostile_names_is_one_page_that_loads_nothing(tmp_path):
    counts = np.arange(60)[::-1] * 5 + 1
    asked = {EVIL: by_hand(0), "$\\frac{": by_hand(1)}
    folders = {name: f"/runs/{name}" for name in asked}
    numbers = side_by_side(asked, {EVIL: counts, "$\\frac{": counts + 1}, folders=folders)
    plot = pages.differences(numbers)[-1]
    write(tmp_path, "comparison", numbers, {"differences": [plot]})
    kept, page = read(tmp_path, "comparison")
    assert kept == numbers and "script" not in page.tags and page.words.count(EVIL) > 5
    assert page.sources == ["data:,", plot["src"]] and page.images[0]["alt"] == plot["alt"]
    assert "Trained on other numbers of images" in page.words
    gap = numbers["compared"]["differences"]["$\\frac{"]["mean"]["shots"]["overall"]
    assert f"{gap['value']:+.1f}" in page.words and gap["low"] < gap["value"] < gap["high"]


def test_clouds_of_many_classes_are_drawn():
    counts = np.arange(1, 61)
    rows = sections.by_class(by_hand(0), counts, tuple(map(str, counts)))
    assert [row["train"] for row in rows] == sorted(counts, reverse=True)
    drawn = pages.clouds({"classes": rows, "run": {"heads": ["cls", "dist", "mean"]}})
    ahead = sum(row["dist"] > row["cls"] for row in rows)
    assert drawn[0]["caption"] == f"DIST is ahead of CLS in {ahead} of 60 classes."
    assert drawn[0]["src"].startswith("data:image/svg+xml;base64,")


def without(folder: Path, copy: Path, *names: str) -> Path:
    shutil.copytree(folder, copy)
    for name in names:
        (copy / name).unlink()
    return copy


@pytest.mark.slow
def test_an_imported_checkpoint_leaves_out_what_it_has_not(run, tmp_path):
    folder = without(run, tmp_path / "imported", "teacher.keras", "metrics.jsonl", "results.json", "report.html")
    report.main(flags_for(folder))
    numbers, page = read(folder)
    assert numbers["mixed"] is None and not numbers["curves"]["curves"]
    assert page.words.count("Left out") == 2 and "has no teacher.keras" in page.words


@pytest.mark.slow
def test_a_plain_vit_and_beside_a_student(run, tmp_path):
    folder = finished(tmp_path / "plain", "--method=vit")
    journal(folder, heads=("cls",))
    report.main(flags_for(folder))
    numbers, page = read(folder)
    assert set(numbers["table"]["paper"]) == {"ViT"} and numbers["duel"] is None
    assert numbers["curves"]["reweight_epoch"] is None and set(numbers["curves"]["curves"]["loss"]) == {"loss"}
    assert "wins" not in page.words and "DIST" not in page.words.replace("CLS and DIST have no place", "")

    student = finished(tmp_path / "student", teacher=True)
    shutil.copytree(folder, student / "vit")
    report.main(flags_for(student))
    numbers, _ = read(student)
    assert next(iter(numbers["table"]["paper"])) == "ViT" and set(numbers["probes"]["models"]) == {"ViT", "student"}


@pytest.mark.slow
def test_runs_are_compared_in_pairs_and_only_on_the_same_images(run, tmp_path):
    other = without(run, tmp_path / "other")
    student, names = load_model(other / "student.keras")
    head = student.get_layer("head")
    head.kernel.assign(-head.kernel)
    save_model(student, other / "student.keras", class_names=names)
    report.main(flags_for(run, f"--compare={run},{other}"))
    numbers, page = read(run, "comparison")
    assert numbers["compared"]["reference"] == "run" and list(numbers["table"]["shots"]) == [
        *(f"{name} {head}" for name in ("run", "other") for head in ("CLS", "DIST", "mean"))
    ]
    found = numbers["compared"]["differences"]["other"]
    table = numbers["table"]["paper"]
    for head in ("CLS", "DIST", "mean"):
        for group in ("overall", "head", "mid", "tail"):
            gap = table[f"other {head}"][group]["value"] - table[f"run {head}"][group]["value"]
            assert found[head]["paper"][group]["value"] == pytest.approx(gap)
    assert found["DIST"]["paper"]["overall"] == {"value": 0, "low": 0, "high": 0}
    assert "Differences from run" in page.words and len(page.images) == 3

    with pytest.raises(ValueError, match="names one run"):
        report.main(flags_for(run, f"--compare={run}"))
    plain = finished(tmp_path / "plain", "--method=vit")
    with pytest.raises(ValueError, match=f"{plain} cannot be compared with {run}: their classes differ"):
        report.main(flags_for(run, f"--compare={plain}"))
    twin = finished(tmp_path / "twin")
    report.main(flags_for(plain, f"--compare={twin}"))  # the same files elsewhere
    numbers, _ = read(plain, "comparison")
    assert next(iter(numbers["compared"]["differences"].values())).keys() == {"CLS", "DIST", "mean"}
    picture(COLOURS["red"], 9).save(tmp_path / "twin" / "images" / "test" / "red" / "9.png")
    with pytest.raises(ValueError, match="it has 13 test images, the other 12"):
        report.main(flags_for(plain, f"--compare={twin}"))


def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    write_text(folder / "flags.cfg", f"--workdir={folder}\n")
    for arguments, words in (
        ([f"--workdir={folder}"], "holds no finished student"),
        ([f"--workdir={tmp_path}"], f"--workdir={tmp_path} is not the folder of a run"),
        ([], "--workdir is missing"),
    ):
        monkeypatch.setattr("sys.argv", ["report", *arguments])
        with pytest.raises(SystemExit, match="1"):
            command_line.program(lambda flags: opened(flags), __doc__, from_workdir=True, takes=("compare",))
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and words in printed and printed.count("\n") == 1


def test_compare_alone_takes_its_first_run_as_the_workdir():
    assert report.with_workdir(["report", "--compare=a,b"]) == ["report", "--compare=a,b", "--workdir=a"]
    assert report.with_workdir(["report", "--compare=a,b", "-workdir=c"]) == ["report", "--compare=a,b", "-workdir=c"]
    assert report.with_workdir(["report", "--seed=1"]) == ["report", "--seed=1"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_a_browser_shows_it_without_errors_or_network(run, browser, width, tmp_path):
    asked, said = [], []
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"file://{run}/report.html")
    assert not said
    assert [url for url in asked if not url.startswith("data:")] == [f"file://{run}/report.html"]
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # only tables scroll
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert re.match(rb"%PDF", (tmp_path / "report.pdf").read_bytes())
