"""A client whose process is lost is asked again, and any other failure is not."""

import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from deitlt_tf.federated.asking import AGAIN, PatientGrid

LOST = Error(ErrorCode.CLIENT_APP_CRASHED, "ClientApp stopped responding.")
GONE = Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable")
FAILED = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "<class 'ValueError'>:<'disk full.'>")


class Grid:
    """Node i answers with answers[i] in turn, and then with a content. None: it does not answer."""

    def __init__(self, **answers):
        self.answers = {int(node[1:]): [*replies] for node, replies in answers.items()}
        self.sent: list[tuple[int, ...]] = []
        self.ttls: list[float] = []

    def get_node_ids(self):
        return {*self.answers}

    def send_and_receive(self, messages, *, timeout):
        self.sent.append(tuple(message.metadata.dst_node_id for message in messages))
        self.ttls += [message.metadata.ttl for message in messages]
        replies = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"{len(self.sent)} {message.metadata.dst_node_id}"
            answers = self.answers[message.metadata.dst_node_id]
            answer = answers.pop(0) if answers else RecordDict()
            if answer is not None:
                replies.append(Message(answer, reply_to=message))
            if answer is GONE:  # an error of the SuperLink, which comes from no node
                replies[-1].metadata.__dict__["_src_node_id"] = 1
        return replies


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def ask(grid: Grid, timeout: float = 100_000.0) -> dict[int, Message]:
    patient = PatientGrid(grid)
    patient.names = {7: "north", 8: "south"}
    sent = [Message(RecordDict(), node, "train") for node in patient.get_node_ids()]
    return {reply.metadata.src_node_id: reply for reply in patient.send_and_receive(sent, timeout=timeout)}


def test_only_who_was_lost_is_asked_again(capsys):
    grid = Grid(n8=[LOST, LOST], n7=[])
    replies = ask(grid)
    assert grid.sent == [(7, 8), (8,), (8,)] and not any(reply.has_error() for reply in replies.values())
    assert capsys.readouterr().out.count("client south: its process ended or was too slow to answer") == 2


def test_a_process_that_is_always_lost_is_reported():
    grid = Grid(n7=[LOST] * 9, n8=[])
    replies = ask(grid)
    assert grid.sent == [(7, 8)] + [(7,)] * AGAIN and replies[7].error.code == ErrorCode.CLIENT_APP_CRASHED


def test_other_failures_and_silence_are_not_asked_about_again():
    grid = Grid(n7=[FAILED], n8=[None])
    assert ask(grid)[7].error.reason == FAILED.reason and grid.sent == [(7, 8)]


def test_a_node_that_is_gone_is_told_apart_from_one_that_is_silent():
    replies = ask(Grid(n7=[GONE], n8=[None]))
    assert [*replies] == [7] and replies[7].error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_message_is_valid_as_long_as_the_server_waits():
    grid = Grid(n7=[LOST], n8=[])
    ask(grid, timeout=86400)
    assert len(grid.ttls) == 3 and all(86300 < ttl <= 86400 for ttl in grid.ttls)  # Flower's own is 43200
