"""Other rules than the plain mean for combining CLS and DIST, on the test images of finished runs.

    python benchmarks/fusing.py --runs=runs/ablation/deit_lt_1_seed0,runs/ablation/deit_lt_1_seed1

Each rule of RULES has numbers to choose. On one half of the test images of every class, the numbers with the highest
class-mean accuracy are chosen; they are measured on the other half. Then the halves change places. So every image is
answered with numbers that were chosen without it. The plain mean and `--prior=uniform` have no numbers to choose.
Differences are those to the plain mean, on the same images. The validation set here is balanced, because it is half of
the test images; a long-tailed collection usually does not have one.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import ablation_tables
import numpy as np
from sklearn.metrics import balanced_accuracy_score

if TYPE_CHECKING:  # its import takes TensorFlow
    from deitlt_tf.evaluation.run import Run

WEIGHTS = np.linspace(0, 1, 21)
LEVELS, SLOPES = np.linspace(-4, 4, 17), np.linspace(-2, 2, 17)

# The choices of numbers; (log p of CLS [N, C], log p of DIST [N, C], centred log n [C], *numbers) -> scores [N, C].
Rule = tuple[list[tuple[float, ...]], Callable[..., np.ndarray]]


def weight_of(log_counts: np.ndarray, level: float, slope: float) -> np.ndarray:
    """Share of DIST in each class, sigmoid(level - slope log n): for slope > 0 it is largest in the rarest class."""
    return 1 / (1 + np.exp(slope * log_counts - level))


def mixed(cls, dist, weight):
    return (1 - weight) * cls + weight * dist


def one_weight(cls, dist, log_counts, weight):
    del log_counts  # the weight is the same in every class
    return mixed(cls, dist, weight)


def logits_by_count(cls, dist, log_counts, level, slope):
    return mixed(cls, dist, weight_of(log_counts, level, slope))


def probabilities_by_count(cls, dist, log_counts, level, slope):
    return mixed(np.exp(cls), np.exp(dist), weight_of(log_counts, level, slope))


RULES: dict[str, Rule] = {
    "temperature per head (one weight)": ([(weight,) for weight in WEIGHTS], one_weight),
    "logits by count": (list(itertools.product(LEVELS, SLOPES)), logits_by_count),
    "probabilities by count": (list(itertools.product(LEVELS, SLOPES)), probabilities_by_count),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", required=True, help="Folders of finished runs with CLS and DIST, separated by commas."
    )
    folders = [Path(folder) for folder in parser.parse_args().runs.split(",")]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        lines, choices = zip(*(measure(folder) for folder in folders), strict=True)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    rows = []
    for rule in lines[0]["right"]:
        scores = [ablation_tables.accuracy(line, rule) for line in lines]
        gains = [ablation_tables.difference(line, rule, line, "plain mean") for line in lines]
        row = [ablation_tables.spread([s[column] for s in scores]) for column in ablation_tables.COLUMNS]
        row += [ablation_tables.gain([b[column] for b in gains]) for column in ("overall", "tail")]
        rows.append([rule, *row])
    header = ["rule", *ablation_tables.COLUMNS, "overall - plain mean", "tail - plain mean"]
    print(ablation_tables.markdown(header, rows))
    for folder, by_rule in zip(folders, choices, strict=True):
        print(folder, "; ".join(f"{rule}: {' and '.join(map(str, both))}" for rule, both in by_rule.items()))


def measure(folder: Path) -> tuple[dict, dict]:
    """A line as `ablation_tables` reads it, with an output for each rule; {rule: the numbers chosen on each half}."""
    from deitlt_tf.recipes import command_line
    from deitlt_tf.report.numbers import opened
    from deitlt_tf.serving.served import prior_adjustment

    recipe = command_line.recipe_of(["fusing", f"--workdir={folder}"], from_workdir=True)
    run = opened(recipe)
    cls, dist, labels = log_probabilities(run)
    counts, classes = run.class_counts, len(run.class_counts)
    names = run.splits.train.class_names
    shift = prior_adjustment(recipe, "uniform", names, counts, weights="student", head="mean")
    log_counts = np.log(counts) - np.log(counts).mean()
    half = halves(labels)
    predicted = {"plain mean": (cls + dist).argmax(-1), "--prior=uniform": ((cls + dist) / 2 + shift).argmax(-1)}
    chosen = {}
    for name, (choices, rule) in RULES.items():
        predicted[name] = np.empty_like(labels)
        chosen[name] = []
        for ours in (half, ~half):
            answers = [rule(cls[ours], dist[ours], log_counts, *numbers).argmax(-1) for numbers in choices]
            best = choices[int(np.argmax([balanced_accuracy_score(labels[ours], each) for each in answers]))]
            predicted[name][~ours] = rule(cls[~ours], dist[~ours], log_counts, *best).argmax(-1)
            chosen[name].append(tuple(float(number) for number in best))
    right = {rule: ablation_tables.packed(each == labels, labels, classes) for rule, each in predicted.items()}
    total = np.bincount(labels, minlength=classes).tolist()
    return {"class_counts": counts.tolist(), "total": total, "right": right}, chosen


def log_probabilities(run: "Run") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p of CLS and of DIST [N, C], labels [N], on the test images."""
    import tensorflow as tf

    from deitlt_tf.evaluation.run import networks, test_batches

    student = networks(run).get("student")
    if student is None:
        raise ValueError(f"{run.folder} holds a plain ViT, which has no DIST to combine with CLS.")
    ask = tf.function(lambda images: student(images, training=False), reduce_retracing=True)
    by_batch = []
    for images, labels, mask in test_batches(run, student):
        outputs, real = ask(images), mask.numpy() > 0
        log_p = [tf.nn.log_softmax(outputs[head]).numpy()[real] for head in ("cls", "dist")]
        by_batch.append([*log_p, labels[real]])
    return tuple(np.concatenate(parts) for parts in zip(*by_batch, strict=True))


def halves(labels: np.ndarray) -> np.ndarray:
    """bool [N]: True for the first, third, ... image of each class."""
    place = np.empty(len(labels), int)
    for label in np.unique(labels):
        ours = np.flatnonzero(labels == label)
        place[ours] = np.arange(len(ours))
    return place % 2 == 0


if __name__ == "__main__":
    main()
