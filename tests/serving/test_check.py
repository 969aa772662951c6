"""The check that every export has to pass: what it counts, what it lets through, what it does not."""

import functools
import time

import numpy as np
import pytest

from deitlt_tf.serving import check

LABELS = np.array([0, 1, 2, 2])
LOGITS = np.array([[2, 0, 1], [1, 1.00006, 0], [0, 1, 3], [3, 0, 1]], np.float32)  # right, right by a tie, right, wrong


def batches(size: int):
    """Images that are row numbers; the last batch is filled up."""
    for start in range(0, 4, size):
        rows = np.arange(start, start + size)
        yield np.minimum(rows, 3), LABELS[np.minimum(rows, 3)], (rows < 4).astype(np.float32)


def answer(logits: np.ndarray):
    return lambda rows: {"logits_cls": logits[rows], "logits_mean": 2 * logits[rows], "probabilities": 9 * logits[rows]}


def compare(other: np.ndarray, *, size: int = 3) -> dict[str, check.Agreement]:
    return check.compare(answer(LOGITS), {"file": answer(other)}, batches(size), num_classes=3, title="")


@pytest.mark.parametrize("size", [1, 3, 4])
def test_every_image_counts_once_whatever_the_batches(size):
    agreements = compare(LOGITS + np.float32(3e-5), size=size)
    for agreement in agreements.values():
        np.testing.assert_array_equal(agreement.hits["total"], [1, 1, 2])
        np.testing.assert_array_equal(agreement.hits["cls"], [1, 1, 1])
    assert agreements["Keras"][:4] == (0, 6, 0, 0)
    assert agreements["file"].difference == pytest.approx(6e-5, rel=0.05)  # of the mean, here twice the logits
    check.require_equal(agreements["file"], name="x.onnx")


def test_a_tie_may_turn_over_and_nothing_else():
    other = LOGITS.copy()
    other[1] = [1.00004, 1, 0]
    agreement = compare(other)["file"]
    assert (agreement.flips, agreement.ties) == (2, 1)  # in the mean its lead is 1.2e-4: no tie
    other[1] = LOGITS[1]
    other[3] = [1, 0, 3]
    agreement = compare(other)["file"]
    assert (agreement.flips, agreement.ties) == (2, 0)
    np.testing.assert_array_equal(agreement.hits["cls"], [1, 1, 2])


def test_a_class_that_keras_masks_has_to_be_masked_in_the_file():
    masked = np.where(np.arange(3) == 1, -np.inf, LOGITS)
    run = functools.partial(check.compare, answer(masked), num_classes=3, title="")
    agreement = run({"file": answer(masked)}, batches(3))["file"]
    assert (agreement.difference, agreement.largest, agreement.flips) == (0, 6, 0)
    check.require_finite(agreement, name="x.onnx")
    agreement = run({"file": answer(LOGITS)}, batches(3))["file"]
    assert agreement.difference == np.inf


@pytest.mark.parametrize(("flips", "ties"), [(0, 0), (2, 2), (2, 1)])
def test_flips_have_to_be_ties(flips, ties):
    agreement = check.Agreement(difference=9e-5, largest=1, flips=flips, ties=ties, hits={})
    if flips == ties:
        check.require_equal(agreement, name="x.onnx")
    else:
        with pytest.raises(ValueError, match=r"x\.onnx: 1 predictions differ from Keras', and are no ties"):
            check.require_equal(agreement, name="x.onnx")


@pytest.mark.parametrize("wrong", [2e-4, np.nan, np.inf])
def test_a_logit_that_is_off_or_no_number_is_refused(wrong):
    other = LOGITS.copy()
    other[3, 1] += wrong
    agreement = compare(other)["file"]
    with pytest.raises(ValueError, match=r"x\.onnx: a logit is .* off Keras'"):
        check.require_equal(agreement, name="x.onnx")
    if np.isfinite(wrong):
        check.require_finite(agreement, name="x.onnx")
    else:
        with pytest.raises(ValueError, match=r"x\.onnx: logits are not finite"):
            check.require_finite(agreement, name="x.onnx")


def test_large_logits_have_float32s_own_tolerance():
    agreement = check.Agreement(difference=9e-4, largest=100, flips=0, ties=0, hits={})
    check.require_equal(agreement, name="x.onnx")
    with pytest.raises(ValueError, match=r"9\.0e-04 off Keras', more than 5e-04"):
        check.require_equal(agreement._replace(largest=50), name="x.onnx")


def test_the_tables_name_groups_files_and_what_was_lost():
    other = LOGITS.copy()
    other[2] = [9, 0, 0]
    text = check.accuracy_tables(compare(other), np.array([200, 50, 5]))
    assert "cls, Keras" in text and "mean, file" in text
    assert text.splitlines()[-1] == "note: file loses at most 50.00 points: mean on tail (shots)"
    assert check.accuracy_tables(compare(LOGITS), np.array([200, 50, 5])).count("\nfile loses at most 0.00 points") == 1
    line = check.describe(compare(other))
    assert line.startswith("file: logits within 1.8e+01 of Keras, 2 of 8 predictions differ (0 of them ties")


def test_sides_take_turns_of_two_calls_after_one_that_is_not_counted():
    order = []
    taken = check.alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] + ["a", "a", "b", "b"] * 3
    assert {name: np.shape(times) for name, times in taken.items()} == {"a": (3, 2), "b": (3, 2)}


def test_waiting_takes_time_and_no_processor():
    ((wall, processor),) = check.alternate({"a": lambda: time.sleep(0.05)}, rounds=1)["a"]
    assert wall >= 0.05 > processor
