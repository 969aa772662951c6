"""What `evaluate` says about one model of a run: rows, ranks, and thresholds that are written."""

import json

import numpy as np
import pytest
from helpers import tiny_run

from deitlt_tf.evaluation import rollup, tables
from deitlt_tf.evaluation.model_rows import Tables, add_model, least_risk
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.models import load_model

HEADS = ("CLS", "DIST", "mean")


@pytest.mark.slow
def test_a_model_has_rows_by_group_and_by_rank_and_a_threshold(tmp_path):
    folder = tiny_run.finished(tmp_path, "--val_fraction=0.3", taxonomy=tiny_run.TAXONOMY)
    recipe = tiny_run.recipe_of(folder)
    splits = load_splits(**recipe.data.loading(), folder=folder)
    counts = np.bincount(splits.train.labels)
    model, printed = load_model(folder / "student.keras")[0], Tables()
    view = {"eval_resize": 0, "max_pixels": 10**6}
    add_model(printed, model, folder / "student.keras", "student", splits, counts, target=0.01, five_crops=2, **view)
    assert list(printed.rows) == [f"{what} {head}" for what in ("student", "five crops") for head in HEADS]
    assert list(printed.by_rank) == [*printed.rows, "student mean, least risk"]
    for name, row in printed.rows.items():
        value = printed.by_rank[name]["accuracy"]["class"]["paper"]["overall"]["value"]
        assert value == row["paper"]["overall"]
    (measured,) = printed.rollups.values()
    threshold = measured["threshold"]  # which one depends on random weights
    assert measured["validation"] and threshold in rollup.THRESHOLDS
    assert measured["columns"]["overall"]["accuracy"] >= 0
    kept = json.loads((folder / "thresholds.json").read_text())["student"]
    assert (
        kept["target"] == 0.01 and kept["heads"]["mean"] == threshold and list(kept["heads"]) == ["cls", "dist", "mean"]
    )
    text = tables.by_rank(printed.by_rank, counts) + tables.format_rollup("student mean", measured, counts)
    assert "student DIST, kind" in text and f"threshold {threshold:g}, at which 1 %" in text


def test_least_risk_answers_are_summed_up_as_others():
    answers = rollup.ByRank(np.zeros((2, 2)), np.zeros((2, 2)), np.array([1, 1]))
    row = least_risk(np.array([0, 2]), answers, np.array([5, 3, 1]), tiny_run.TAXONOMY)
    overall = {rank: bounds["paper"]["overall"]["value"] for rank, bounds in row["accuracy"].items()}
    assert overall == {"class": 0, "kind": 50} and row["mistakes"]["paper"]["overall"]["value"] == 1.5
