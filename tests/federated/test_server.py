"""The server: who takes part in a round, and that another set of clients is noticed."""

import functools

import pytest
from helpers.federation import recipe_in, tiny_network

from deitlt_tf.federated import etf
from deitlt_tf.federated.client import Reply
from deitlt_tf.federated.server import Server, sample


def test_samples_depend_on_seed_and_round_alone():
    names = [f"client{i}" for i in range(10)]
    drawn = [sample(names, number, fraction=0.3, seed=5) for number in range(1, 30)]
    assert drawn == [sample(names[::-1], number, fraction=0.3, seed=5) for number in range(1, 30)]
    assert all(len(chosen) == 3 and chosen == sorted(chosen) for chosen in drawn)
    assert {name for chosen in drawn for name in chosen} == {*names}
    assert sample(names, 1, fraction=0.01, seed=5) and sample(names, 1, fraction=1, seed=5) == names


def test_other_clients_than_before_are_refused_and_rounds_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(etf, "sse_c", functools.partial(etf.sse_c, steps=3))
    network = tiny_network()

    def server(*names: str) -> Server:
        return Server(recipe_in(tmp_path, "--eval_every=2"), network, trained=names, class_names=("a", "b", "c"))

    one = server("north", "south")
    averaged = {name: array + 1 for name, array in one.shared.averaged().items()}
    replies = [Reply("north", {}, 30, 2.0), Reply("south", {}, 10, 4.0)]
    one.complete_round(replies, averaged, measure=lambda: None, seconds=2.0)
    one.complete_round(replies[:1], averaged, measure=lambda: None, seconds=1.0)
    one.journal.add({"step": 3})  # killed before the checkpoint of round 3
    again = server("south", "north")
    again.restore()
    assert "going on after round 2 of 3" in "".join(capsys.readouterr())
    assert (again.number, again.seconds, again.last) == (2, 3.0, {"north": 2, "south": 1})
    assert [line["loss"] for line in again.journal.lines()] == [2.5, 2.0]
    assert [again.measures_after(number) for number in (1, 2, 3)] == [False, True, False]
    with pytest.raises(ValueError, match="holds a run of the clients north, south, and now they are east, north"):
        server("north", "east").restore()
