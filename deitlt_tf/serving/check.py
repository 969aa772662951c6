"""Does an exported file answer as Keras does? Both see the same images: differences, accuracy by group, size, time."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.evaluation import metrics, tables
from deitlt_tf.serving.served import Images, Served

TOLERANCE = 1e-4  # of a float32 file's logits, and of the margin below which an argmax is a tie
RELATIVE = 1e-5  # of the largest logit, where that is more: float32 itself is no better
LOSS_WORTH_A_NOTE = 0.5  # points of accuracy

Answer = Callable[[np.ndarray], dict[str, np.ndarray]]  # uint8 [B, S, S, 3] -> {"logits_cls": float32 [B, C], ...}


class Agreement(NamedTuple):
    """One way to answer, against Keras, over a set of N images.

    difference: largest |z - z_keras| of any logit.
    largest: largest |z_keras|.
    flips: how often an argmax differs, over images and heads.
    ties: how many of the flips are ties: Keras' best logit leads by at most TOLERANCE.
    hits: `metrics.count_hits`' numbers: {head: int64 [C], "total": int64 [C]}.
    """

    difference: float
    largest: float
    flips: int
    ties: int
    hits: dict[str, np.ndarray]


def report(served: Served, images: Images, files: dict[str, tuple[Path, Answer]]) -> None:
    """Print how each file compares with Keras. "float32" has to be its equal: raises ValueError where it is not."""
    sides = {name: answer for name, (_, answer) in files.items()}
    reference = keras_answer(served)
    classes = len(served.class_names)
    agreements = images.reading(
        lambda: compare(reference, sides, images.batches, num_classes=classes, title="comparing with Keras")
    )
    print(describe(agreements))
    for name, (path, _) in files.items():
        require_finite(agreements[name], name=path.name)
    require_equal(agreements["float32"], name=files["float32"][0].name)
    if images.class_counts is not None:
        print(accuracy_tables(agreements, images.class_counts))
    megabytes = {name: path.stat().st_size / 1e6 for name, (path, _) in files.items()}
    print(speed_table({"Keras": reference} | sides, megabytes=megabytes, image_size=served.image_size))


def keras_answer(served: Served) -> Answer:
    """The Keras network itself, as one tf.function of any batch size."""
    size = served.image_size
    function = tf.function(
        lambda images: served(images), input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8)]
    )
    return lambda images: {name: value.numpy() for name, value in function(images).items()}


def compare(
    reference: Answer, others: dict[str, Answer], batches: Iterable, *, num_classes: int, title: str
) -> dict[str, Agreement]:
    """Agreement of "Keras" (with itself) and of each of `others`, in one pass over (images, labels, mask) batches."""
    answers = {"Keras": reference} | others
    totals = {name: Agreement(0.0, 0.0, 0, 0, {}) for name in answers}
    for images, labels, mask in tqdm(batches, desc=title, leave=False):
        kept = np.asarray(mask) > 0
        images, labels = np.asarray(images)[kept], np.asarray(labels)[kept]
        keras_logits: dict[str, np.ndarray] = {}
        for name, answer in answers.items():
            logits = {k.removeprefix("logits_"): np.asarray(v) for k, v in answer(images).items() if "logits" in k}
            keras_logits = keras_logits or logits
            totals[name] = _plus(totals[name], logits, keras_logits, labels, num_classes)
    return totals


def _plus(total: Agreement, logits: dict, keras_logits: dict, labels: np.ndarray, num_classes: int) -> Agreement:
    difference, largest, flips, ties, hits = total
    found = {"total": np.bincount(labels, minlength=num_classes)}
    for head, z in logits.items():
        expected = keras_logits[head]
        if not np.isfinite(z).all():
            difference = np.inf
            z = np.nan_to_num(z)
        best = z.argmax(-1)
        changed = best != expected.argmax(-1)
        second, first = np.sort(expected, axis=-1)[:, -2:].T if num_classes > 1 else np.zeros((2, len(z)))
        difference = max(difference, float(np.abs(z - expected).max(initial=0)))
        largest = max(largest, float(np.abs(expected).max(initial=0)))
        flips += int(changed.sum())
        ties += int((changed & (first - second <= TOLERANCE)).sum())
        found[head] = np.bincount(labels[best == labels], minlength=num_classes)
    return Agreement(difference, largest, flips, ties, {name: hits.get(name, 0) + n for name, n in found.items()})


def require_finite(agreement: Agreement, *, name: str) -> None:
    """Raises ValueError where a file answers with infinities or NaN: half precision ends at 65504."""
    if not np.isfinite(agreement.difference):
        raise ValueError(f"{name}: logits are not finite; this network does not fit into that precision.")


def require_equal(agreement: Agreement, *, name: str) -> None:
    """Raises ValueError where a float32 file is not Keras' equal: a logit off by more, or an argmax that is no tie."""
    allowed = max(TOLERANCE, RELATIVE * agreement.largest)
    if not agreement.difference <= allowed:  # also for NaN
        raise ValueError(f"{name}: a logit is {agreement.difference:.1e} off Keras', more than {allowed:.0e}.")
    if far := agreement.flips - agreement.ties:
        raise ValueError(f"{name}: {far} predictions differ from Keras', and are no ties.")


def describe(agreements: dict[str, Agreement]) -> str:
    """One line for each file: its largest difference, and how many predictions changed."""
    lines = []
    for name, (difference, _, flips, ties, hits) in agreements.items():
        if name != "Keras":
            asked = int(hits["total"].sum()) * (len(hits) - 1)
            lines.append(
                f"{name}: logits within {difference:.1e} of Keras, "
                f"{flips} of {asked} predictions differ ({ties} of them ties within {TOLERANCE:.0e})"
            )
    return "\n".join(lines)


def accuracy_tables(agreements: dict[str, Agreement], class_counts: np.ndarray) -> str:
    """Accuracy by group of every head and file beside Keras, and what each file loses at most."""
    measured = {name: metrics.accuracies(a.hits, class_counts) for name, a in agreements.items()}
    parts = []
    for convention in ("shots", "paper"):
        rows = {
            f"{head}, {name}": measured[name][convention][head]
            for head in measured["Keras"][convention]
            for name in agreements
        }
        title = "top-1 accuracy, %; " + tables.describe_groups(class_counts, convention)
        parts.append(tables.format_table(rows, title=title))
    for name in agreements:
        if name != "Keras":
            points, where = largest_loss(measured["Keras"], measured[name])
            note = "note: " if points > LOSS_WORTH_A_NOTE else ""
            parts.append(f"{note}{name} loses at most {points:.2f} points: {where}")
    return "\n".join(parts)


def largest_loss(expected: dict, found: dict) -> tuple[float, str]:
    """Points of accuracy, and of which head, on which group: the worst of all in two results of `metrics.accuracies`"""
    return max(
        (accuracy - found[convention][head][group], f"{head} on {group} ({convention})")
        for convention, heads in expected.items()
        for head, groups in heads.items()
        for group, accuracy in groups.items()
        if accuracy is not None
    )


def alternate(
    sides: dict[str, Callable[[], object]], *, rounds: int, seconds: float = 0.0
) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of calls, the sides taking turns, so that all meet whatever else the machine does.

    At least `rounds` turns, and more until `seconds` are over. The second of a turn's two calls counts: during the
    first, threads of the side before may still be spinning. One turn before that is not counted at all.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for call in sides.values():
        call()
    end = time.perf_counter() + seconds
    while min(map(len, taken.values())) < rounds or time.perf_counter() < end:
        for name, call in sides.items():
            call()
            wall, processor = time.perf_counter(), time.process_time()
            call()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return taken


def speed_table(answers: dict[str, Answer], *, megabytes: dict[str, float], image_size: int) -> str:
    """Size, and median milliseconds for batches of 1 and 32 images."""
    width = max(map(len, answers))
    lines = [f"{'':<{width}} {'MB':>8} {'ms at 1':>9} {'ms at 32':>9}"]
    pixels = np.random.default_rng(0).integers(0, 256, (32, image_size, image_size, 3), dtype=np.uint8)
    medians = [
        {name: 1e3 * np.median(x, 0)[0] for name, x in alternate(_calls(answers, pixels[:batch]), rounds=5).items()}
        for batch in (1, 32)
    ]
    for name in answers:
        size = f"{megabytes[name]:8.1f}" if name in megabytes else f"{'-':>8}"
        lines.append(f"{name:<{width}} {size} {medians[0][name]:9.1f} {medians[1][name]:9.1f}")
    return "\n".join(lines)


def _calls(answers: dict[str, Answer], pixels: np.ndarray) -> dict[str, Callable[[], object]]:
    return {name: lambda answer=answer: answer(pixels) for name, answer in answers.items()}
