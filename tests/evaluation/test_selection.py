"""The weights with the best validation score wait in best.npz, and are what the run ends with."""

import keras
import numpy as np

from deitlt_tf.evaluation import selection


def model(value: float) -> keras.Model:
    network = keras.Sequential([keras.Input([2]), keras.layers.Dense(1)])
    network.set_weights([np.full((2, 1), value), np.zeros(1)])
    return network


def measured(overall: float) -> dict:
    """Accuracies whose last head, the mean, has this overall accuracy."""
    return {"shots": {}, "paper": {"cls": {"overall": 99.0}, "mean": {"overall": overall}}}


def test_the_score_is_the_overall_accuracy_of_the_mean_or_of_the_only_head():
    assert selection.score(measured(40.0)) == 40.0
    assert selection.score({"paper": {"cls": {"overall": 30.0}}}) == 30.0


def test_the_first_of_the_best_wins(tmp_path):
    memory = {}
    for step, (value, overall) in enumerate([(1.0, 40.0), (2.0, 60.0), (3.0, 60.0), (4.0, 50.0)]):
        weights = "EMA" if step % 2 else "raw"
        selection.offer(
            model(value), measured=measured(overall), weights=weights, step=step, memory=memory, folder=tmp_path
        )
    assert memory == {"best": {"score": 60.0, "step": 1, "weights": "EMA"}}
    winner = model(0.0)
    sentence = selection.load(winner, memory=memory, folder=tmp_path)
    assert sentence == "EMA weights of step 1, best on the validation split (60.00 %)"
    np.testing.assert_array_equal(winner.get_weights()[0], np.full((2, 1), 2.0))


def test_a_score_of_zero_is_better_than_none(tmp_path):
    memory = {}
    selection.offer(model(1.0), measured=measured(0.0), weights="raw", step=3, memory=memory, folder=tmp_path)
    assert memory["best"]["step"] == 3 and (tmp_path / selection.FILE).is_file()
