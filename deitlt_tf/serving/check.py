"""Compare an exported file with Keras on the same images: differences of logits, accuracy by group, size, time."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.evaluation import metrics, rollup, tables
from deitlt_tf.serving.served import Images, Served

TOLERANCE = 1e-4  # largest difference of a logit in a float32 file, and largest lead of a logit that counts as a tie
RELATIVE = 1e-5  # times the largest logit replaces TOLERANCE where it is larger: float32 is no more exact than that
LOSS_WORTH_A_NOTE = 0.5  # points of accuracy

Answer = Callable[[np.ndarray], dict[str, np.ndarray]]  # uint8 [B, S, S, 3] -> {"logits_cls": float32 [B, C], ...}


class Agreement(NamedTuple):
    """How a file compares with Keras over a set of images.

    difference: largest |z - z_keras| of any logit.
    largest: largest |z_keras|.
    flips: how many predictions (argmax) differ, over images and heads.
    ties: how many of the flips are ties: Keras' best logit leads by at most TOLERANCE.
    hits: {head: int64 [C], "total": int64 [C]}, as `metrics.count_hits` returns them.
    by_rank: how many answers by rank do not follow from the file's own probabilities, see `rollup.disagreeing`.
    """

    difference: float
    largest: float
    flips: int
    ties: int
    hits: dict[str, np.ndarray]
    by_rank: int = 0


def report(served: Served, images: Images, files: dict[str, tuple[Path, Answer]]) -> None:
    """Print how each file compares with Keras.

    files: {name: (path, a function that runs the file)}, with the name "float32" among them.
    Raises ValueError where an output is not finite, or where "float32" is not equal to Keras (see `require_equal`).
    """
    answers = {name: answer for name, (_, answer) in files.items()}
    reference = keras_answer(served)
    classes = len(served.class_names)
    agreements: dict[str, Agreement] = images.reading(
        lambda: compare(
            reference,
            answers,
            images.batches,
            num_classes=classes,
            title="comparing with Keras",
            wrong_ranks=partial(wrong_ranks, served),
        )
    )
    print(describe(agreements))
    for name, (path, _) in files.items():
        require_finite(agreements[name], name=path.name)
    require_equal(agreements["float32"], name=files["float32"][0].name)
    if images.class_counts is not None:
        print(accuracy_tables(agreements, images.class_counts))
    megabytes = {name: path.stat().st_size / 1e6 for name, (path, _) in files.items()}
    print(speed_table({"Keras": reference} | answers, megabytes=megabytes, image_size=served.image_size))


def keras_answer(served: Served) -> Answer:
    """The Keras network as one tf.function of any batch size."""
    size = served.image_size
    function = tf.function(
        lambda images: served(images), input_signature=[tf.TensorSpec((None, size, size, 3), tf.uint8)]
    )
    return lambda images: {name: value.numpy() for name, value in function(images).items()}


def compare(
    reference: Answer,
    others: dict[str, Answer],
    batches: Iterable,
    *,
    num_classes: int,
    title: str,
    wrong_ranks: Callable[[dict[str, np.ndarray]], int] = lambda outputs: 0,
) -> dict[str, Agreement]:
    """{name: Agreement} of "Keras" (with itself) and of each of `others`, in one pass over the batches.

    batches: (images uint8 [B, S, S, 3], labels [B], mask [B]: 0 for padding). title: of the progress bar.
    wrong_ranks: outputs of a file -> how many answers by rank are wrong.
    """
    answers = {"Keras": reference} | others
    totals = {name: Agreement(0.0, 0.0, 0, 0, {}) for name in answers}
    for images, labels, mask in tqdm(batches, desc=title, leave=False):
        real = np.asarray(mask) > 0
        images, labels = np.asarray(images)[real], np.asarray(labels)[real]
        keras_logits: dict[str, np.ndarray] = {}
        for name, answer in answers.items():
            outputs = {k: np.asarray(v) for k, v in answer(images).items()}
            logits = {k.removeprefix("logits_"): v for k, v in outputs.items() if "logits" in k}
            keras_logits = keras_logits or logits
            wrong = totals[name].by_rank + wrong_ranks(outputs)
            totals[name] = _plus(totals[name], logits, keras_logits, labels, num_classes)._replace(by_rank=wrong)
    return totals


def _plus(total: Agreement, logits: dict, keras_logits: dict, labels: np.ndarray, num_classes: int) -> Agreement:
    difference, largest, flips, ties, hits, _ = total
    batch_hits = {"total": np.bincount(labels, minlength=num_classes)}
    for head, z in logits.items():
        expected = keras_logits[head]
        # The personal model of a federated client has -inf for the classes that the client does not have.
        compared = ~(np.isneginf(z) & np.isneginf(expected))
        if not np.isfinite(z[compared]).all():
            difference = np.inf
            z = np.where(compared, np.nan_to_num(z), z)
        best = z.argmax(-1)
        changed = best != expected.argmax(-1)
        second, first = np.sort(expected, axis=-1)[:, -2:].T if num_classes > 1 else np.zeros((2, len(z)))
        difference = max(difference, float(np.abs(z[compared] - expected[compared]).max(initial=0)))
        largest = max(largest, float(np.abs(expected[compared]).max(initial=0)))
        flips += int(changed.sum())
        ties += int((changed & (first - second <= TOLERANCE)).sum())
        batch_hits[head] = np.bincount(labels[best == labels], minlength=num_classes)
    return Agreement(difference, largest, flips, ties, {name: hits.get(name, 0) + n for name, n in batch_hits.items()})


def require_finite(agreement: Agreement, *, name: str) -> None:
    """Raises ValueError where a file outputs infinity or NaN and Keras does not.

    The largest number in half precision is 65504.
    """
    if not np.isfinite(agreement.difference):
        raise ValueError(f"{name}: logits are not finite; this network does not fit into that precision.")


def require_equal(agreement: Agreement, *, name: str) -> None:
    """Raises ValueError where a float32 file is not equal to Keras.

    Equal means: no logit differs by more than max(TOLERANCE, RELATIVE x the largest logit), and every prediction that
    differs is a tie.
    """
    allowed = max(TOLERANCE, RELATIVE * agreement.largest)
    if not agreement.difference <= allowed:  # also for NaN
        raise ValueError(f"{name}: a logit is {agreement.difference:.1e} off Keras', more than {allowed:.0e}.")
    if far := agreement.flips - agreement.ties:
        raise ValueError(f"{name}: {far} predictions differ from Keras', and are no ties.")
    if agreement.by_rank:
        raise ValueError(f"{name}: {agreement.by_rank} answers by rank do not follow from its own probabilities.")


def wrong_ranks(served: Served, outputs: dict[str, np.ndarray]) -> int:
    """How many answers by rank of a file are not those that its own probabilities give; 0 without a threshold."""
    if served.taxonomy is None or served.threshold is None:
        return 0
    return rollup.disagreeing(outputs["probabilities"], outputs, served.taxonomy, served.threshold, tie=RELATIVE)


def describe(agreements: dict[str, Agreement]) -> str:
    """One line for each file: its largest difference, and how many predictions changed."""
    lines = []
    for name, (difference, _, flips, ties, hits, by_rank) in agreements.items():
        if name != "Keras":
            predictions = int(hits["total"].sum()) * (len(hits) - 1)
            lines.append(
                f"{name}: logits within {difference:.1e} of Keras, "
                f"{flips} of {predictions} predictions differ ({ties} of them ties within {TOLERANCE:.0e})"
                + (f"; {by_rank} answers by rank do not follow from its own probabilities" if by_rank else "")
            )
    return "\n".join(lines)


def accuracy_tables(agreements: dict[str, Agreement], class_counts: np.ndarray) -> str:
    """Accuracy by group of every head, for Keras and each file, and the largest loss of accuracy of each file."""
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


def largest_loss(reference: dict, other: dict) -> tuple[float, str]:
    """The largest loss in points of accuracy, and its head and group in words.

    reference, other: two results of `metrics.accuracies`.
    """
    return max(
        (accuracy - other[convention][head][group], f"{head} on {group} ({convention})")
        for convention, heads in reference.items()
        for head, groups in heads.items()
        for group, accuracy in groups.items()
        if accuracy is not None
    )


def alternate(
    sides: dict[str, Callable[[], object]], *, rounds: int, seconds: float = 0.0
) -> dict[str, list[tuple[float, float]]]:
    """(wall, processor) seconds of calls. The sides take turns, so that other work on the machine affects all alike.

    sides: {name: a function to time}. There are at least `rounds` turns, and more until `seconds` have passed.
    A turn is two calls, and the second one counts, because threads of the previous side may spin during the first.
    Before the first turn, each side is called once.
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
    """A table of sizes and of median milliseconds for batches of 1 and 32 images."""
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
    return {name: partial(answer, pixels) for name, answer in answers.items()}
