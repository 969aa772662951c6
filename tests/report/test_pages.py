"""Every picture of a report comes with its words."""

import numpy as np
from helpers.report_pages import by_hand

from deitlt_tf.report import pages, sections


def test_clouds_of_many_classes_are_drawn():
    counts = np.arange(1, 61)
    rows = sections.by_class(by_hand(0), counts, tuple(map(str, counts)))
    assert [row["train"] for row in rows] == sorted(counts, reverse=True)
    figures = pages.clouds({"classes": rows, "run": {"heads": ["cls", "dist", "mean"]}})
    ahead = sum(row["dist"] > row["cls"] for row in rows)
    assert figures[0]["caption"] == f"DIST is ahead of CLS in {ahead} of 60 classes."
    assert figures[0]["src"].startswith("data:image/svg+xml;base64,")
    for network in ("student", "ViT"):
        (figure,) = pages.clouds({"classes": rows, "run": {"heads": ["cls"], "network": network}})
        assert figure["alt"].endswith(f": {network}")


def test_shifts_tell_their_ends_in_words():
    numbers = {"shifts": sections.shifts({"student": by_hand(0)}, np.arange(60)[::-1] + 1)}
    (figure,) = pages.shifts(numbers)
    for head, row in (("CLS", "student CLS"), ("mean", "student mean")):
        ends = numbers["shifts"][row]
        assert f"{head} {ends['backward 50']:.1f} to {ends['forward 50']:.1f}" in figure["alt"]
    assert figure["src"].startswith("data:image/svg+xml;base64,") and figure["caption"]


def test_every_duel_has_both_answers():
    predictions = by_hand()
    images = np.zeros((2, 8, 8, 3), np.uint8)
    figures = pages.duel(images, [4, 5], predictions, ("a", "b", "c"))
    assert [figure["caption"] for figure in figures] == ["c", "c"]
    assert figures[0]["lines"] == [
        f"CLS: a {pages.percent(predictions.confidence['cls'][4])}",
        f"DIST: c {pages.percent(predictions.confidence['dist'][4])}",
    ]
    assert all(figure["src"].startswith("data:image/png;base64,") for figure in figures)
