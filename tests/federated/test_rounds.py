"""All clients in one process: rounds repeat to the bit, survive a kill, and refuse what cannot be averaged."""

import dataclasses
import functools
import json
import shutil

import keras
import numpy as np
import pytest
from helpers.federation import recipe_in, source_of, tiny_clients, tiny_network

from deitlt_tf.data.dataset import Splits
from deitlt_tf.federated import client, etf, networks, rounds
from deitlt_tf.federated.client import Reply


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def updates():
    """{settings: `ClientUpdate`}: a step is traced once for all tests of this file."""
    return {}


@pytest.fixture(autouse=True)
def tiny(monkeypatch, network, updates):
    """Every federation has the tiny network with the same first weights, and a fixed head after a few steps of Adam."""
    start = network.features.get_weights()

    def build(recipe, *, num_classes):
        network.features.set_weights(start)
        return network

    def update(recipe, network, *, num_classes):
        key = (recipe.federated.has_fixed_head, recipe.federated.proximal, recipe.federated.rounds.lr)
        if key not in updates:
            updates[key] = client.make_update(recipe, network, num_classes=num_classes)
        return updates[key]

    monkeypatch.setattr(networks, "build", build)
    monkeypatch.setattr(rounds, "make_update", update)
    monkeypatch.setattr(etf, "sse_c", functools.partial(etf.sse_c, steps=50))
    yield
    network.features.set_weights(start)


def federation(folder, *flags: str, clients=None, splits=None) -> rounds.Federation:
    return rounds.Federation(recipe_in(folder, *flags), clients or tiny_clients(), splits)


def everything(run: rounds.Federation) -> dict[str, bytes]:
    """What has to repeat: what the server holds, local heads, and the journal."""
    arrays = run.server.shared.arrays()
    for name, one in run.trained.items():
        _, local = one.state(run.server.shared, run.server.last[name])
        arrays |= {f"{name} local": local.kernel} if local else {}
    lines = {"journal": (run.server.folder / "metrics.jsonl").read_bytes()}
    return {name: array.tobytes() for name, array in arrays.items()} | lines


def test_rounds_train_every_client_and_all_models_are_written(tmp_path):
    run = federation(tmp_path, "--federated_rounds=2")
    before = run.server.shared.arrays()
    run.fit()
    after = run.server.shared.arrays()
    assert {name for name in before if np.array_equal(before[name], after[name])} == {"fixed/kernel", "fixed/bias"}
    run.finish()
    numbers = json.loads((tmp_path / "results.json").read_text())["federated"]
    assert numbers["saved"] == {"generic": "GLA-FR", "personal": "GLA-FR"}
    assert numbers["clients"]["south"] == {"images": 5, "counts": [0, 5, 0], "test_images": 4}
    assert numbers["generic"].keys() == {"SSE-C", "aux", "GLA-FR"}
    personal = numbers["personal"]
    assert personal.keys() == {"aux", "local", "local + aux", "GLA-FR", "prior", "generic model"}
    # South has one class, and every other one is masked.
    assert all(personal[row]["clients"]["south"] == 100 for row in personal if row != "generic model")
    assert [line["step"] for line in run.server.journal.lines()] == [1, 2]

    # The files answer as the numbers say.
    tests = tiny_clients()[0].test
    model = keras.models.load_model(tmp_path / "clients/north/student.keras")
    right = model(tests.images).numpy().argmax(1) == tests.labels
    assert 100 * right.mean() == pytest.approx(personal["GLA-FR"]["clients"]["north"])
    south = keras.models.load_model(tmp_path / "clients/south/student.keras")
    assert np.isneginf(south(tests.images).numpy()[:, [0, 2]]).all()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, capsys):
    straight = federation(tmp_path / "straight", "--eval_every=1")
    straight.fit()
    # Killed in round 3, when one client has trained and the other one has not.
    killed = federation(tmp_path / "killed", "--eval_every=1")
    train = client.Client.train

    def dies(self, shared, number, **rest):
        if (self.name, number) == ("south", 3):
            raise KeyboardInterrupt
        return train(self, shared, number, **rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(client.Client, "train", dies)
        killed.fit()
    assert killed.server.number == 2 and (tmp_path / "killed/clients/north/checkpoints/000000003.npz").is_file()
    again = federation(tmp_path / "killed", "--eval_every=1")
    again.fit()
    assert "going on after round 2 of 3" in "".join(capsys.readouterr())
    assert everything(again) == everything(straight)
    lines = again.server.journal.lines()
    assert [line["step"] for line in lines] == [1, 2, 3] and {"generic/GLA-FR", "personal/prior"} <= lines[0].keys()


def reply(run, name: str = "north", **changes) -> Reply:
    arrays = run.server.shared.averaged()
    return Reply(name, arrays | changes, size=9, loss=1.0)


def test_numbers_that_are_not_finite_stop_the_round_and_nothing_is_lost(tmp_path):
    run = federation(tmp_path)
    run.complete_round([reply(run)], seconds=0)
    before = run.server.shared.arrays()
    bad = {"aux/bias": np.float32([np.nan, 0, 0])}
    with pytest.raises(ValueError, match="client south sends numbers in aux/bias that are not finite"):
        run.complete_round([reply(run), reply(run, "south", **bad)], seconds=0)
    again = federation(tmp_path)
    again.server.restore()
    assert again.server.number == 1
    assert all(np.array_equal(array, before[name]) for name, array in again.server.shared.arrays().items())


@pytest.mark.slow
def test_a_client_that_lost_its_folder_says_so(tmp_path):
    run = federation(tmp_path)
    run.fit()
    shutil.rmtree(tmp_path / "clients/south/checkpoints")
    again = federation(tmp_path)
    again.server.restore()
    with pytest.raises(ValueError, match=r"client south took part in round 3, but .*south/checkpoints does not hold"):
        again.trained["south"].train(again.server.shared, 4, last=again.server.last["south"])


def test_a_client_called_all_does_not_stand_for_all_in_central_training(tmp_path):
    clients = [
        dataclasses.replace(client, name=name) for client, name in zip(tiny_clients(), ("all", "b"), strict=True)
    ]
    with pytest.raises(ValueError, match="a client is called 'all', as is what central training learns from"):
        federation(tmp_path, "--federated_method=central", clients=clients)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_client_and_round(tmp_path):
    run = federation(tmp_path, "--federated_lr=1e30")
    with pytest.raises(FloatingPointError, match=r"client (north|south): in round \d the loss is (nan|inf)"):
        run.fit()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "generic", "personal"),
    [
        ("fedavg", "plain", "masked"),
        ("fedavg_rescaled", "rescaled", "rescaled"),
        ("fedavg_prior", "plain", "prior"),
        ("fedprox", "plain", "masked"),
        ("local", None, "masked"),
        ("central", "plain", "masked"),
    ],
)
def test_every_method_trains_and_says_what_it_saves(tmp_path, method, generic, personal):
    tests = source_of((4, 4, 4), seed=9)
    splits = Splits(source_of((6, 7, 1), seed=1), None, tests)
    run = federation(tmp_path, f"--federated_method={method}", splits=splits)
    before = run.server.shared.arrays()
    run.fit()
    run.finish()
    after = run.server.shared.arrays()
    moved = any(not np.array_equal(before[name], after[name]) for name in before)
    assert moved == (method != "local")
    numbers = json.loads((tmp_path / "results.json").read_text())["federated"]
    assert numbers["saved"] == {"generic": generic, "personal": personal}
    assert (tmp_path / "student.keras").is_file() == (generic is not None)
    assert (tmp_path / "clients/north/student.keras").is_file()
    if generic:
        model = keras.models.load_model(tmp_path / "student.keras")
        right = model.predict(tests.images, verbose=0).argmax(1) == tests.labels
        assert 100 * right.mean() == pytest.approx(numbers["generic"][generic]["shots"]["overall"])


@pytest.mark.slow
def test_some_clients_a_round_keep_their_heads_between_their_turns(tmp_path):
    straight = federation(tmp_path / "a", "--federated_fraction=0.5", "--federated_rounds=6")
    straight.fit()
    assert {len(straight.server.sampled(number)) for number in range(1, 7)} == {1}
    first = federation(tmp_path / "b", "--federated_fraction=0.5", "--federated_rounds=6")
    for number in range(1, 7):  # each round in a new process, as it were
        run = first if number == 1 else federation(tmp_path / "b", "--federated_fraction=0.5", "--federated_rounds=6")
        run.server.restore()
        server = run.server
        replies = [run.trained[n].train(server.shared, number, last=server.last[n]) for n in server.sampled(number)]
        run.complete_round(replies, seconds=0)
    assert everything(run) == everything(straight)
