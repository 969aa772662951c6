"""The weights with the best validation score wait in best.npz, and are what the run ends with."""

import keras
import numpy as np
import pytest

from deitlt_tf.evaluation import metrics, selection


def model(value: float) -> keras.Model:
    network = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    network.set_weights([np.full((2, 1), value), np.zeros(1)])
    return network


def measured(balanced: float) -> dict:
    """Accuracies whose last head, the mean, has this mean over classes."""
    of_mean = {"overall": 100 - balanced, "balanced": balanced}
    return {"shots": {}, "paper": {"cls": {"overall": 99.0, "balanced": 99.0}, "mean": of_mean}}


def test_the_score_is_the_mean_over_classes_of_the_mean_or_of_the_only_head():
    assert selection.score(measured(40.0)) == 40.0
    assert selection.score({"paper": {"cls": {"overall": 70.0, "balanced": 30.0}}}) == 30.0


def test_on_a_long_tailed_split_weights_that_know_the_tail_win(tmp_path):
    """100 images of the head and 4 of the tail: the share of right images would choose the first weights."""
    total, memory = np.array([100, 4]), {}
    for step, right in enumerate([[98, 0], [80, 3]]):
        accuracies = metrics.accuracies({"cls": np.array(right), "total": total}, total)
        selection.offer(model(step), measured=accuracies, kind="raw", step=step, memory=memory, folder=tmp_path)
    assert memory["best"] == {"step": 1, "kind": "raw", "score": pytest.approx((80 + 75) / 2)}


def test_the_first_of_the_best_wins(tmp_path):
    memory = {}
    for step, (value, balanced) in enumerate([(1.0, 40.0), (2.0, 60.0), (3.0, 60.0), (4.0, 50.0)]):
        kind = "ema" if step % 2 else "raw"
        selection.offer(model(value), measured=measured(balanced), kind=kind, step=step, memory=memory, folder=tmp_path)
    assert memory == {"best": {"score": 60.0, "step": 1, "kind": "ema"}}
    winner = model(0.0)
    assert selection.load(winner, memory=memory, folder=tmp_path) == memory["best"]
    np.testing.assert_array_equal(winner.get_weights()[0], np.full((2, 1), 2.0))


def test_a_score_of_zero_is_better_than_none(tmp_path):
    memory = {}
    selection.offer(model(1.0), measured=measured(0.0), kind="raw", step=3, memory=memory, folder=tmp_path)
    assert memory["best"]["step"] == 3 and (tmp_path / selection.FILE).is_file()


def test_the_score_of_version_0_1_0_is_another_one(tmp_path):
    """It was the share of right images, so it is kept until the first score of this version, and not compared."""
    memory = {"best": {"score": 90.0, "step": 1, "weights": "ema"}}
    selection.save_weights(model(1.0), tmp_path / selection.FILE)
    assert selection.load(model(0.0), memory=memory, folder=tmp_path) == {"score": 90.0, "step": 1, "kind": "ema"}
    selection.offer(model(2.0), measured=measured(40.0), kind="raw", step=2, memory=memory, folder=tmp_path)
    assert memory["best"] == {"score": 40.0, "step": 2, "kind": "raw"}
