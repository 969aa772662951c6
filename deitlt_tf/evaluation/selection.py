"""The weights of a run that do best on its validation split, kept in best.npz until the run ends."""

from pathlib import Path
from typing import Any

import keras

from deitlt_tf.devices.strategy import is_chief, wait_for_all
from deitlt_tf.runs.models import load_weights, save_weights

FILE = "best.npz"


def score(measured: dict) -> float:
    """What weights are chosen by: the mean over classes of the accuracy of the mean of CLS and DIST, or the only head.

    The share of right images would not do: a held-out part of long-tailed data is mostly head, where re-weighting
    loses. On CIFAR-10-LT with --val_fraction=0.1 it chose weights with 6.2 % on the tail, where the last have 21.0 %.
    measured: what `metrics.accuracies` returns.
    """
    return list(measured["paper"].values())[-1]["balanced"]


def offer(model: keras.Model, *, measured: dict, kind: str, step: int, memory: dict, folder: Path) -> None:
    """Keep these weights if their score is above every earlier one.

    measured: their accuracies on the validation split. kind: which weights they are, "raw" or "ema". step: of training.
    memory: of the run, part of every checkpoint; remembers the best weights under "best".
    """
    earlier = memory.get("best", {})
    # The score of version 0.1.0, which has no "kind", was the share of right images.
    if "kind" not in earlier or score(measured) > earlier["score"]:
        memory["best"] = {"step": step, "kind": kind, "score": score(measured)}
        if is_chief():
            save_weights(model, folder / FILE)


def load(model: keras.Model, *, memory: dict, folder: Path) -> dict[str, Any]:
    """Set a model to the best weights; returns which they are: {"step", "kind", "score"}."""
    best = memory["best"]
    wait_for_all()
    load_weights(model, folder / FILE)
    return {"step": best["step"], "kind": best.get("kind", best.get("weights")), "score": best["score"]}
