"""Numbers over clients: means, spreads, groups, and clients without test images."""

import numpy as np
import pytest
from helpers.federation import recipe_in

from deitlt_tf.data.taxonomy import from_lineages
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


def test_with_a_taxonomy_the_saved_readings_have_rows_by_rank(capsys):
    """Of all clients' images together: the generic model is right in 8 of 14, and has the right kind in 9."""
    pets = from_lineages([("cat", "animal"), ("car", "vehicle"), ("dog", "animal")], ("class", "kind"))
    ranked = {client: {part: with_kinds(rows) for part, rows in parts.items()} for client, parts in HITS.items()}
    numbers = results.numbers(ranked, generic=None, counts=COUNTS, taxonomy=pets)
    plain = results.numbers(HITS, generic=None, counts=COUNTS)
    assert numbers["personal"] == plain["personal"] and numbers["generic"] == plain["generic"]
    for row, right in (("generic plain", (8, 9)), ("personal masked", (12, 12))):
        accuracy = numbers["taxonomy"]["models"][row]["cls"]["accuracy"]
        values = [accuracy[rank]["shots"]["overall"]["value"] for rank in ("class", "kind")]
        assert values == pytest.approx([100 * right[0] / 14, 100 * right[1] / 14])
    results.print_tables(numbers, np.sum([*COUNTS.values()], 0), saved=(None, "masked"))
    printed = capsys.readouterr().out
    assert "personal masked, kind" in printed and "generic plain, kind" not in printed


def with_kinds(rows):
    """The same hits with a coarser rank, at which a cat that is taken for a dog is right."""
    kinds = {name: np.minimum(np.add(x, [1, 0, 0]), rows["total"]) for name, x in rows.items() if name != "total"}
    return {name: np.stack([rows[name], x]) for name, x in kinds.items()} | {"total": rows["total"]}


def test_points_of_the_curves_are_overall_accuracies():
    numbers = results.numbers(HITS, generic=None, counts=COUNTS)
    assert results.curve_points(numbers) == {"generic/plain": pytest.approx(100 * 8 / 14), "personal/masked": 82.5}


def test_the_file_says_which_readings_are_saved(tmp_path, capsys):
    numbers = results.numbers(HITS, generic=None, counts=COUNTS)
    recipe = recipe_in(tmp_path, "--federated_method=fedavg")
    federated = results.file(recipe, numbers, class_names=("a", "b", "c"))["federated"]
    assert federated["saved"] == {"generic": "plain", "personal": "masked"} and federated["method"] == "fedavg"
    results.print_tables(numbers, np.sum([*COUNTS.values()], 0), saved=("plain", "masked"))
    printed = capsys.readouterr().out
    assert "by rank" not in printed
    assert "generic plain" in printed and "personal masked" in printed
    assert "standard deviation over clients: masked 10.6" in printed
