"""Stock FedAvg with what long-tailed clients need: who takes part, what is averaged, and no silent failures."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from deitlt_tf.federated import aggregation, messages
from deitlt_tf.federated.client import Reply
from deitlt_tf.federated.server import Server


class SharedMean(FedAvg):
    """FedAvg of what clients share; local heads never come here.

    It differs from stock FedAvg in four ways. Clients are drawn by seed and round, not by chance. Replies are sorted by
    the names of clients before they are summed, because a sum of floats depends on its order. A reply that is missing,
    failed, of another network or not finite ends the run with one sentence, and the last complete round stays. The
    arrays that go out also have the fixed head, which does not come back.

    server: holds rounds and arrays. nodes: {name of a client: its node}. common: what every message tells.
    measure: returns `results.numbers`, or None; called after every `eval_every` rounds.

    The server takes over the arrays in `after_round`, which is the `evaluate_fn` of `start`, and not in
    `aggregate_train`: a wrapper of Flower may still change them in between, for example add noise.
    """

    def __init__(
        self,
        server: Server,
        nodes: Mapping[str, int],
        *,
        common: Mapping[str, Any],
        measure: Callable[[], Mapping[str, Any] | None],
    ):
        super().__init__(fraction_evaluate=0.0, weighted_by_key=messages.SIZE)
        self.server, self.nodes, self.common, self.measure = server, dict(nodes), dict(common), measure
        self.replies: list[Reply] = []  # of the round that `after_round` will complete

    def summary(self) -> None:
        """Nothing: the command has said it."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """The messages of a round, one for each client that takes part."""
        number = self.server.number + 1
        record = messages.array_record(self.server.shared.arrays())
        requests = []
        for name in self.server.sampled(number):
            content = messages.content(self.common | {"round": number, "last": self.server.last[name]})
            content[messages.ARRAYS] = record
            requests.append(Message(content, self.nodes[name], MessageType.TRAIN))
        return requests

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The weighted mean. Raises as `sorted_replies` and `aggregation.check_reply` do."""
        server, number = self.server, self.server.number + 1
        nodes = {name: self.nodes[name] for name in server.sampled(number)}
        by_name = sorted_replies(nodes, replies, what=f"round {number}")
        shapes = {name: array.shape for name, array in server.shared.averaged().items()}
        checked = []
        for name, message in by_name.items():
            record = next(iter(message.content.array_records.values()), ArrayRecord())
            arrays = messages.arrays_of(record, expected=shapes, sender=f"client {name}")
            metrics = next(iter(message.content.metric_records.values()), MetricRecord())
            size, loss = int(metrics.get(messages.SIZE, 0)), float(metrics.get("loss", np.nan))
            aggregation.check_reply(name, arrays, server.shared.averaged(), size=size, loss=loss)
            checked.append(Reply(name, arrays, size, loss))
        averaged, _ = super().aggregate_train(server_round, by_name.values())
        self.replies = checked
        return averaged, None

    def after_round(self, server_round: int, arrays: ArrayRecord) -> None:
        """The server takes over the arrays of a round. Raises RuntimeError if a wrapper has dropped the round."""
        if server_round == 0:  # before the first round
            return
        if not self.replies:
            raise RuntimeError(f"round {self.server.number + 1}: a client failed or did not answer in time. {RESTART}")
        averaged = messages.arrays_of(arrays, sender="the mean")
        averaged = {name: array.astype(np.float32) for name, array in averaged.items()}
        replies, self.replies = self.replies, []
        self.server.complete_round(replies, averaged, measure=self.measure)


def sorted_replies(nodes: Mapping[str, int], replies: Iterable[Message], *, what: str) -> dict[str, Message]:
    """{client: its reply}, sorted by name. nodes: {client: its node}. what: for the message of an error.

    Raises RuntimeError that names the first client that failed, with the reason, or that did not answer in time.
    """
    of_node = {reply.metadata.src_node_id: reply for reply in replies}
    by_name = {name: of_node.get(nodes[name]) for name in sorted(nodes)}
    for name, reply in by_name.items():
        if reply is None:
            raise RuntimeError(f"{what}: client {name} did not answer in time. {RESTART}")
        if reply.has_error():
            reason = REASONS.get(reply.error.code) or plain(reply.error.reason)
            raise RuntimeError(f"{what}: client {name} failed: {reason} {RESTART}")
    return {name: reply for name, reply in by_name.items() if reply is not None}


REASONS = {
    ErrorCode.CLIENT_APP_CRASHED: "its process ended or was too slow to answer, every time it was asked.",
    ErrorCode.NODE_UNAVAILABLE: "its SuperNode is not connected any more.",
}
RESTART = "The rounds before are saved: when the client is there again, start the same run again."


def plain(reason: str) -> str:
    """Flower's "<class 'ValueError'>:<'sentence'>" as the sentence."""
    _, separator, sentence = reason.partition(">:<'")
    return sentence.removesuffix("'>") if separator else reason
