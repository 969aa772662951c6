"""The weights of a run that do best on its validation split, kept in best.npz until the run ends."""

from pathlib import Path

import keras

from deitlt_tf.devices.strategy import is_chief, wait_for_all
from deitlt_tf.runs.models import load_weights, save_weights

FILE = "best.npz"


def score(measured: dict) -> float:
    """What weights are chosen by: the overall accuracy of the mean of CLS and DIST, or of the only head, percent.

    measured: what `metrics.accuracies` returns.
    """
    return list(measured["paper"].values())[-1]["overall"]


def offer(model: keras.Model, *, measured: dict, weights: str, step: int, memory: dict, folder: Path) -> None:
    """Keep these weights if their score is above every earlier one.

    measured: their accuracies on the validation split. weights: which they are, "raw" or "ema". step: of training.
    memory: of the run, part of every checkpoint; remembers the best score under "best".
    """
    if score(measured) > memory.get("best", {"score": -1.0})["score"]:
        memory["best"] = {"score": score(measured), "step": step, "weights": weights}
        if is_chief():
            save_weights(model, folder / FILE)


def load(model: keras.Model, *, memory: dict, folder: Path) -> str:
    """Set a model to the best weights; returns a sentence that says which they are."""
    best = memory["best"]
    wait_for_all()
    load_weights(model, folder / FILE)
    return f"{best['weights']} weights of step {best['step']}, best on the validation split ({best['score']:.2f} %)"
