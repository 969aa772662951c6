"""The numbers of each section, from predictions, probes and journals written by hand."""

import time

import numpy as np
import pytest
from helpers.report_pages import by_hand

from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.evaluation import predictions, rollup
from deitlt_tf.evaluation.probes import Probes
from deitlt_tf.report import pages, sections


def test_tail_images_are_counted_by_hand():
    ours, counts = by_hand(), np.array([90, 30, 3])
    winners = sections.duel(ours, counts, most=1)
    assert winners["images"] == {"DIST alone": 2, "CLS alone": 1, "both": 0, "neither": 1}
    assert winners["shown"] == {"DIST alone": [4], "CLS alone": [5]}
    lost = sections.confusions(ours, counts, ("a", "b", "c"))
    assert lost["ends"]["cls"] == {"right": 0.25, "head": 0.5, "mid": 0.25, "tail": 0.0}
    assert lost["classes"][0]["taken_for"]["cls"][0] == {"name": "a", "train": 90, "share": 0.5}
    other = predictions.Predictions(ours.labels, {"cls": ours.labels}, {"cls": np.ones(7)})
    compared = sections.compared(ours, other, counts, resamples=20, seed=0, level=0.95)
    assert compared["CLS"]["paper"]["tail"]["value"] == 75 and compared["DIST"]["paper"]["tail"]["value"] == 50


def test_rows_are_the_heads_of_a_network():
    assert sections.rows_of("student", by_hand(0)) == {
        "student CLS": "cls", "student DIST": "dist", "student mean": "mean",
    }  # fmt: skip
    one = predictions.Predictions(np.array([0]), {"cls": np.array([0])}, {"cls": np.ones(1)})
    assert sections.rows_of("teacher", one) == {"teacher": "cls"}


def test_a_table_has_the_accuracies_of_every_row_within_their_bounds():
    ours, counts = by_hand(), np.array([90, 30, 3])
    table = sections.table({"student": ours}, counts, resamples=20, seed=0, level=0.95)
    assert list(table) == ["shots", "paper"] and list(table["paper"]) == ["student CLS", "student DIST"]
    row = table["paper"]["student CLS"]
    assert row["overall"]["value"] == pytest.approx(100 * 4 / 7) and row["balanced"]["value"] == 75
    assert row["head"]["value"] == 100 and row["mid"]["value"] == 100 and row["tail"]["value"] == 25
    for bound in row.values():
        assert bound["low"] <= bound["value"] <= bound["high"]


def test_classes_come_by_frequency_with_the_accuracy_of_each_head():
    rows = sections.by_class(by_hand(), np.array([3, 90, 30]), ("a", "b", "c"))
    assert [(row["name"], row["train"], row["test"]) for row in rows] == [("b", 90, 1), ("c", 30, 4), ("a", 3, 2)]
    assert [row["cls"] for row in rows] == [100, 25, 100] and [row["dist"] for row in rows] == [100, 50, 50]


def test_a_class_without_test_images_has_no_accuracy():
    (row,) = [r for r in sections.by_class(by_hand(), np.array([9, 8, 7, 6]), tuple("abcd")) if r["name"] == "d"]
    assert (row["test"], row["cls"], row["dist"]) == (0, None, None)


def test_the_history_leaves_out_what_was_never_written():
    journal = [
        {"epoch": 0, "loss": 2.0, "guidance": 3.0},
        {"epoch": 1, "loss": 1.0, "val/raw/paper/mean/tail": 30.0},
    ]
    history = sections.history(journal, reweight_epoch=None, unit="round")
    assert history == {
        "unit": "round",
        "epoch": [1, 2],
        "reweight_epoch": None,
        "split": "val",
        "curves": {
            "loss": {"loss": [2.0, 1.0], "guidance, before its weight": [3.0, None]},
            "accuracy, tail": {"mean": [None, 30.0]},
        },
    }


@pytest.mark.parametrize("tokens", [1, 2])
def test_probes_are_averaged_over_images(tokens):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(9, 2, tokens, 4))
    final = np.broadcast_to(np.eye(2, 4)[:tokens], (9, tokens, 4))
    probes = Probes(draw.random((9, 2, 3)), features, final, draw.random((9, tokens, 2, 2)))
    inside = sections.inside(probes)
    np.testing.assert_allclose(inside["distance"], probes.distance.mean(0))
    assert {name: len(ranks) for name, ranks in inside["rank"].items()} == dict.fromkeys(("CLS", "DIST")[:tokens], 2)
    assert inside["diversity"] == (pytest.approx(1) if tokens == 2 else None)


def test_a_teacher_names_the_stronger_label_the_weaker_or_neither():
    targets = np.array([[0.7, 0.3, 0], [0.7, 0.3, 0], [0, 0.4, 0.6], [0.5, 0.5, 0]])
    views = predictions.MixedViews(targets, np.array([0, 1, 0, 2]), np.ones(4), np.zeros((0, 1, 1, 3), np.uint8), [])
    numbers = sections.mixed(views, np.array([90, 30, 3]))
    assert numbers["views"] == 4
    assert numbers["says"] == {"the stronger label": 0.25, "the weaker label": 0.25, "neither": 0.5}
    assert numbers["groups"]["tail"] == {"labels": pytest.approx(0.15), "answers": 0.25}


def test_calibration_and_shifts_have_a_row_for_every_head():
    ours, counts = by_hand(0), np.arange(60)[::-1] + 1
    rows = list(sections.rows_of("student", ours))
    calibration = sections.calibration({"student": ours}, counts)
    assert list(calibration) == rows
    assert calibration["student CLS"]["overall"]["images"] == 300
    assert sum(calibration["student CLS"][group]["images"] for group in ("head", "mid", "tail")) == 300
    shifts = sections.shifts({"student": ours}, counts)
    assert list(shifts) == rows
    for head, row in zip(("cls", "dist", "mean"), shifts.values(), strict=True):
        assert row["uniform"] == pytest.approx(100 * ours.right(head).mean())  # every class has as many images
        assert [*row][:1] == ["backward 50"] and [*row][-1:] == ["forward 50"]


def test_sections_of_8142_classes_take_seconds():
    """As many classes and test images as iNaturalist 2018 has."""
    classes = 8142
    draw, counts = np.random.default_rng(0), np.geomspace(1000, 2, classes).astype(int)
    labels = np.repeat(np.arange(classes), 3)
    predicted = {
        head: np.where(draw.random(len(labels)) < 0.6, labels, draw.integers(0, classes, len(labels)))
        for head in sections.HEADS
    }
    ours = predictions.Predictions(labels, predicted, {head: draw.random(len(labels)) for head in predicted})
    names = [str(c) for c in range(classes)]
    start = time.perf_counter()
    sections.table({"student": ours}, counts, resamples=1000, seed=0, level=0.95)
    sections.compared(ours, ours, counts, resamples=1000, seed=0, level=0.95)
    sections.by_class(ours, counts, names)
    sections.confusions(ours, counts, names)
    sections.calibration({"student": ours}, counts)
    sections.shifts({"student": ours}, counts)
    sections.duel(ours, counts, most=12)
    assert time.perf_counter() - start < 20


# ---- ranks of a taxonomy ---------------------------------------------------------------------------------------------

TAXONOMY = from_lineages([("a", "A"), ("b", "A"), ("c", "B")], ("species", "genus"))


def with_ranks() -> predictions.Predictions:
    """`by_hand` with answers at every rank: those of a head that is sure of the genus in every second image."""
    ours = by_hand()
    confidence = np.stack([np.full(7, 0.4), np.where(np.arange(7) % 2, 0.5, 0.9)], 1)
    by_rank = {
        head: rollup.ByRank(TAXONOMY.ancestors.T[predicted], confidence, predicted)
        for head, predicted in ours.predicted.items()
    }
    return predictions.Predictions(ours.labels, ours.predicted, ours.confidence, by_rank)


BOOTSTRAP = {"resamples": 20, "seed": 0, "level": 0.95}


def test_rows_by_rank_are_those_of_every_head_and_of_the_least_risk():
    ours, counts = with_ranks(), np.array([90, 30, 3])
    numbers = sections.by_rank({"student": ours}, counts, TAXONOMY, answering="student", **BOOTSTRAP)
    assert numbers["ranks"] == ["species", "genus"] and numbers["names"] == {"species": 3, "genus": 2}
    assert list(numbers["rows"]) == ["student CLS", "student DIST", "student DIST, least risk"]
    row = numbers["rows"]["student CLS"]
    overall = {rank: bounds["paper"]["overall"]["value"] for rank, bounds in row["accuracy"].items()}
    assert overall == {"species": pytest.approx(100 * 4 / 7), "genus": pytest.approx(100 * 4 / 7)}
    assert row["mistakes"]["paper"]["head"] is None and row["mistakes"]["paper"]["tail"]["value"] == 2


def test_answers_at_a_rank_come_with_what_is_confused_and_a_threshold():
    ours, counts = with_ranks(), np.array([90, 30, 3])
    numbers = sections.answers_by_rank(ours, None, counts, TAXONOMY, target=0.7, most=1, **BOOTSTRAP)
    assert numbers["head"] == "DIST" and list(numbers["nearer"]) == ["DIST - CLS"]
    assert numbers["confused"] == {
        "rank": "genus", "pairs": [{"of": "B", "taken_for": "A", "images": 2, "share": 0.5}]
    }  # fmt: skip
    assert numbers["rollup"]["validation"] is False and numbers["rollup"]["threshold"] is None
    at = {row["threshold"]: row for row in numbers["rollup"]["curve"]}
    assert at[0.7]["coverage"] == {"species": 0, "genus": pytest.approx(4 / 7), "nothing": pytest.approx(3 / 7)}
    # Images 0, 2, 4 and 6 are answered at the genus; the last of them is taken for A.
    assert at[0.7]["accuracy"] == 0.75
    numbers = sections.answers_by_rank(ours, ours, counts, TAXONOMY, target=0.7, most=1, **BOOTSTRAP)
    assert 0 < numbers["rollup"]["threshold"] <= 0.9 and numbers["rollup"]["columns"]["tail"]["accuracy"] is not None


def test_two_runs_are_compared_at_a_rank():
    ours, counts = by_hand(), np.array([90, 30, 3])
    other = predictions.Predictions(ours.labels, {"cls": ours.labels}, {"cls": np.ones(7)})
    for row, gap in zip(TAXONOMY.ancestors, (3, 3), strict=True):
        compared = sections.compared(ours, other, counts, nodes=row, **BOOTSTRAP)
        assert compared["CLS"]["paper"]["overall"]["value"] == pytest.approx(100 * gap / 7)
    dist = [sections.compared(ours, other, counts, nodes=x, **BOOTSTRAP)["DIST"] for x in TAXONOMY.ancestors]
    values = [bounds["paper"]["overall"]["value"] for bounds in dist]
    assert values == [pytest.approx(300 / 7), pytest.approx(200 / 7)]


FEDERATED = {
    "method": "fedloge",
    "rounds": 4,
    "saved": {"generic": "GLA-FR", "personal": "GLA-FR"},
    "class_names": ["a", "b$"],
    "clients": {
        "north": {"images": 9, "counts": [9, 0], "test_images": 3},
        "south": {"images": 4, "counts": [1, 3], "test_images": 0},
    },
    "personal": {
        "GLA-FR": {
            "mean": {"shots": {"overall": 70.0}},
            "spread": {"shots": {"overall": None}},
            "clients": {"north": 70.0},
        },
        "generic model": {
            "mean": {"shots": {"overall": 50.0}},
            "spread": {"shots": {"overall": None}},
            "clients": {"north": 50.0},
        },
    },
}


def test_clients_have_accuracies_before_and_after_and_curves_of_what_is_saved():
    journal = [
        {"step": 1, "loss": 1.0},
        {"step": 2, "generic/GLA-FR": 40.0, "personal/GLA-FR": 60.0, "personal/aux": 1.0},
    ]
    section = sections.clients({"federated": FEDERATED}, journal)
    assert section["clients"]["north"]["before"] == 50.0 and section["clients"]["north"]["after"] == 70.0
    assert section["clients"]["south"]["after"] is None
    assert section["personal"]["GLA-FR"] == {"mean": 70.0, "spread": None}
    assert section["curves"] == {"round": [2], "accuracy": {"generic": [40.0], "personal": [60.0]}}
    assert sections.clients({"raw": {}}, journal) is sections.clients(None, []) is None
    figures = pages.clients({"clients": section})
    assert len(figures) == 3 and "better at 1 of 1 clients" in figures[1]["caption"]
    assert pages.clients({"clients": None}) == []
    assert len(pages.clients({"clients": section | {"curves": {"round": [], "accuracy": {}}}})) == 2
