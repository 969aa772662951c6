"""Server and clients of the Flower app in one process: messages go from app to app, without a network."""

import json
import shutil

import numpy as np
import pytest
from helpers.federation import write_clients, write_flag_file, write_flag_files

flwr = pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")

from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict  # noqa: E402
from flwr.common.constant import ErrorCode  # noqa: E402
from flwr.supercore.task_identity import TaskIdentity  # noqa: E402

from deitlt_tf.federated import client_app, messages, server_app, strategy  # noqa: E402

CLIENTS = {"north": {"blue": 3, "green": 2, "red": 1}, "south": {"green": 3}}
RECIPE = """
--federated_clients=2
--federated_rounds=2
--federated_epochs=1
--federated_batch_size=4
--federated_network=vit
--image_size=8
--patch_size=4
--model=deit_nano
--embed_dim=16
--depth=1
--num_heads=2
--crop=none
--randaugment=
--eval_resize=0
--eval_every=1
"""


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    """What a process of Flower knows about itself."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class LocalGrid:
    """A Grid whose nodes are the client app with a flag file each. spoil: {client: function of its reply}."""

    def __init__(self, root, spoil=None, names=tuple(CLIENTS)):
        self.root, self.spoil, self.names = root, spoil or {}, names
        self.sent: list[tuple[str, str]] = []

    def get_node_ids(self):
        return [100 + i for i in range(len(self.names))]

    def send_and_receive(self, messages, *, timeout=None):
        return [reply for message in messages if (reply := self.answer(message)) is not None]

    def answer(self, message: Message):
        name = self.names[message.metadata.dst_node_id - 100]
        kind = message.metadata.message_type
        self.sent.append((name, kind))
        config = {"name": name, "flagfile": str(self.root / f"{name}.cfg")}
        context = Context(1, message.metadata.dst_node_id, config, RecordDict(), {})
        message.metadata.__dict__["_message_id"] = str(len(self.sent))
        try:
            reply = client_app.app(message=message, context=context)
        except Exception as error:  # as flwr-clientapp does
            reply = Message(Error(code=1, reason=f"{type(error)}:<'{error}'>"), reply_to=message)
        spoiled = self.spoil.get(name, lambda reply, kind: reply)(reply, kind)
        return Message(spoiled, reply_to=message) if isinstance(spoiled, Error) else spoiled


@pytest.fixture
def root(tmp_path):
    write_clients(tmp_path, CLIENTS, tests=3)
    write_flag_files(tmp_path, CLIENTS, recipe=RECIPE, at=tmp_path / "at")
    return tmp_path


def write_client(root, name: str, *flags: str, **classes: str) -> None:
    write_flag_file(root, name, *flags, at=root / "at", **classes)


def run(root, *, noise=0.0, clip=1.0, **grid):
    local = LocalGrid(root, **grid)
    recipe = server_app.recipe_of({"flagfile": str(root / "server.cfg")})
    server_app.Coordinator(recipe, local, timeout=1, noise=noise, clip=clip).run()
    return local


def rounds_of(root) -> list[str]:
    return sorted(path.stem[-1] for path in (root / "at/server").glob("checkpoints/*.npz"))


def spoiled(name: str, value: float):
    """A reply of which one array is replaced, in training only."""

    def spoil(reply, kind):
        if kind == "train":
            record = reply.content.array_records[messages.ARRAYS]
            arrays = {key: array.numpy() for key, array in record.items()}
            arrays[name] = np.full_like(arrays[name], value)
            reply.content[messages.ARRAYS] = ArrayRecord({key: Array(array) for key, array in arrays.items()})
        return reply

    return spoil


@pytest.mark.slow
def test_a_run_asks_everybody_and_only_what_is_shared_leaves_a_client(root):
    replies = []

    def watch(reply, kind):
        replies.append((kind, reply))
        return reply

    grid = run(root, spoil={"north": watch})
    assert [kind for _, kind in grid.sent] == ["query"] * 2 + (["train"] * 2 + ["evaluate"] * 2) * 2
    assert rounds_of(root) == ["1", "2"]
    for name in CLIENTS:
        assert (root / "at" / name / "student.keras").is_file()
    numbers = json.loads((root / "at/server/results.json").read_text())["federated"]
    assert numbers["clients"]["south"] == {"images": 3, "counts": [0, 3, 0], "test_images": 3}
    assert numbers["personal"]["GLA-FR"]["clients"]["south"] == 100.0  # its only class
    (_, reply), *_ = [x for x in replies if x[0] == "train"]
    names = {*reply.content.array_records[messages.ARRAYS]}
    assert {"aux/kernel", "aux/bias"} < names and not {name for name in names if name.startswith(("local", "fixed"))}
    assert {*reply.content.metric_records[messages.METRICS]} == {"num-examples", "loss"}


@pytest.mark.slow
def test_what_goes_wrong_is_one_sentence_and_the_rounds_before_stay(root):
    def fails(reply, kind):
        return Error(code=1, reason="<class 'ValueError'>:<'disk full.'>") if kind == "train" else reply

    with pytest.raises(RuntimeError, match=r"round 1: client south failed: disk full. The rounds before are saved"):
        run(root, spoil={"south": fails})
    with pytest.raises(RuntimeError, match="round 1: client south did not answer in time"):
        run(root, spoil={"south": lambda reply, kind: None if kind == "train" else reply})
    with pytest.raises(ValueError, match="client north sends numbers in aux/bias that are not finite"):
        run(root, spoil={"north": spoiled("aux/bias", np.nan)})
    assert rounds_of(root) == []
    write_client(root, "south", "--federated_lr=0.5")
    with pytest.raises(
        RuntimeError, match=r"client south has another recipe than the server: `federated_lr` is '0\.03'"
    ):
        run(root)
    shutil.rmtree(root / "at/south")  # which holds the local head of a run with a list of classes
    write_client(root, "south", classes="")
    with pytest.raises(ValueError, match=r"client south has 1 classes and client north has 3\. Agree on one list"):
        run(root)
    (root / "other.txt").write_text("blue\ngreen\nrose\n")
    write_client(root, "south", classes="other.txt")
    with pytest.raises(ValueError, match=r"client south has other classes than client north: class 2 is 'rose' there"):
        run(root)
    write_client(root, "south")
    with pytest.raises(ValueError, match="two nodes have the name north"):
        run(root, names=("north", "north"))
    assert rounds_of(root) == []
    run(root)
    assert rounds_of(root) == ["1", "2"]


@pytest.mark.slow
def test_noise_of_flowers_wrapper_reaches_what_the_server_keeps(root):
    def weights(folder):
        with np.load(root / folder / "checkpoints/000000002.npz") as archive:
            return {name: archive[name] for name in archive.files if name != "note"}

    run(root)
    (root / "at").rename(root / "plain")
    run(root, noise=1e-3, clip=0.5)
    plain, noisy = weights("plain/server"), weights("at/server")
    assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in noisy.values())
    assert not any(np.array_equal(plain[name], noisy[name]) for name in plain if not name.startswith("fixed"))
    assert np.array_equal(plain["fixed/kernel"], noisy["fixed/kernel"])

    def fails(reply, kind):
        return Error(code=1, reason="<class 'ValueError'>:<'disk full.'>") if kind == "train" else reply

    shutil.rmtree(root / "at")
    with pytest.raises(RuntimeError, match=r"round 1: (a client failed|client south failed: disk full\.)"):
        run(root, spoil={"south": fails}, noise=1e-3)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (ErrorCode.CLIENT_APP_CRASHED, "its process ended or was too slow to answer, every time it was asked"),
        (ErrorCode.NODE_UNAVAILABLE, "its SuperNode is not connected any more"),
    ],
)
def test_a_client_that_is_gone_is_named(code, sentence):
    reply = Message(Error(code, "Flower's words"), reply_to=Message(RecordDict(), 7, "train"))
    with pytest.raises(RuntimeError, match=f"round 3: client south failed: {sentence}. The rounds before are saved"):
        strategy.sorted_replies({"south": 7}, [reply], what="round 3")


def test_a_reason_of_flower_is_shown_as_its_sentence():
    assert strategy.plain("<class 'ValueError'>:<'class a is empty'>") == "class a is empty"
    assert strategy.plain("ClientApp stopped responding.") == "ClientApp stopped responding."
