"""Numbers over clients: means, spreads, groups, and clients without test images."""

import numpy as np
import pytest
from helpers.federation import recipe_in

from deitlt_tf.federated import results


def hits(row, right, total):
    return {row: np.array(right), "total": np.array(total)}


COUNTS = {"east": np.array([10, 0, 2]), "north": np.array([150, 30, 0]), "south": np.array([0, 5, 4])}
HITS = {
    "east": {},
    "north": {"generic": hits("plain", [6, 0, 0], [8, 2, 0]), "personal": hits("masked", [8, 1, 0], [8, 2, 0])},
    "south": {"generic": hits("plain", [0, 1, 1], [0, 2, 2]), "personal": hits("masked", [0, 1, 2], [0, 2, 2])},
}


def test_the_mean_is_over_clients_that_have_images_and_the_spread_is_theirs():
    numbers = results.numbers(HITS, generic=None, counts=COUNTS)
    row = numbers["personal"]["masked"]
    assert row["clients"] == {"north": 90.0, "south": 75.0}
    assert row["mean"]["shots"]["overall"] == 82.5
    assert row["spread"]["shots"]["overall"] == pytest.approx(np.std([90, 75], ddof=1))
    # Head is class 0 (160 images of all clients together): only north tests it.
    assert row["mean"]["shots"]["head"] == 100.0 and row["spread"]["shots"]["head"] is None
    assert row["mean"]["shots"]["mid"] == 50.0 and row["mean"]["shots"]["tail"] == 100.0
    # By its own shares, south's head are classes 1 and 2; north's is class 0 alone, class 1 is mid.
    assert row["mean"]["share"]["head"] == 87.5 and row["mean"]["share"]["mid"] == 50.0
    assert numbers["clients"]["east"] == {"images": 12, "counts": [10, 0, 2], "test_images": 0}


def test_without_a_test_set_of_the_server_the_clients_images_are_added_up():
    numbers = results.numbers(HITS, generic=None, counts=COUNTS)
    assert numbers["generic"]["plain"]["shots"]["overall"] == pytest.approx(100 * 8 / 14)
    own = {"plain": np.array([1, 1, 1]), "total": np.array([2, 2, 2])}
    assert results.numbers(HITS, generic=own, counts=COUNTS)["generic"]["plain"]["shots"]["overall"] == 50.0


def test_points_of_the_curves_are_overall_accuracies():
    numbers = results.numbers(HITS, generic=None, counts=COUNTS)
    assert results.curve_points(numbers) == {"generic/plain": pytest.approx(100 * 8 / 14), "personal/masked": 82.5}


def test_the_file_says_which_readings_are_saved(tmp_path, capsys):
    numbers = results.numbers(HITS, generic=None, counts=COUNTS)
    recipe = recipe_in(tmp_path, "--federated_method=fedavg")
    federated = results.file(recipe, numbers, class_names=("a", "b", "c"))["federated"]
    assert federated["saved"] == {"generic": "plain", "personal": "masked"} and federated["method"] == "fedavg"
    results.print_tables(numbers, np.sum([*COUNTS.values()], 0))
    printed = capsys.readouterr().out
    assert "generic plain" in printed and "personal masked" in printed
    assert "standard deviation over clients: masked 10.6" in printed
