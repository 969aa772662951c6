"""Predictions written by hand, a journal, and a page as a browser reads it; for the tests of reports."""

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from deitlt_tf.evaluation import metrics, predictions
from deitlt_tf.report import sections
from deitlt_tf.runs.files import write_text

EPOCHS = 4
EVIL = "<script>alert($1)<$script>"  # a folder's name may hold all but a slash


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
