"""A grid that asks a client again when Flower has lost the process that was to answer."""

import time
from collections.abc import Iterable

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

AGAIN = 2  # how often a client is asked again


class PatientGrid:
    """The part of Flower's `Grid` that strategies use; a client whose process is lost is asked again.

    Flower gives a process half a minute to start and takes it for lost when it is silent for a minute. A machine that
    is busy, or short of memory for a moment, exceeds both without being broken. A client's answer depends on the
    message and on the client's folder alone, so a second answer is the same as the first one would have been.

    grid: of Flower. It reports a lost process as an error of its own kind; other errors are not asked about again.
    names: {node: client}, for what is printed; a node without a name is printed by its number.
    """

    def __init__(self, grid: Grid):
        self.grid = grid
        self.names: dict[int, str] = {}

    def get_node_ids(self) -> list[int]:
        """The nodes that are connected, sorted."""
        return sorted(self.grid.get_node_ids())

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        """The replies within `timeout` seconds for all attempts together, at most one for each node.

        A message is valid as long: without that Flower drops it after 12 hours.
        """
        end = time.monotonic() + timeout
        requests = {message.metadata.dst_node_id: message for message in messages}
        replies: dict[int, Message] = {}
        for attempt in range(AGAIN + 1):
            left = max(1.0, end - time.monotonic())
            # Made anew, because Flower identifies a message by its content and the time it was made.
            sent = [
                Message(request.content, node, request.metadata.message_type, ttl=left)
                for node, request in requests.items()
                if attempt == 0 or (node in replies and is_lost(replies[node]))
            ]
            received = self.grid.send_and_receive(sent, timeout=left)
            by_id = {message.metadata.message_id: message for message in sent}
            for reply in received:
                request = by_id[reply.metadata.reply_to_message_id]
                # Flower's own errors, of a node that is gone for example, do not come from that node.
                reply = Message(reply.error, reply_to=request) if reply.has_error() else reply
                replies[request.metadata.dst_node_id] = reply
            lost = [node for node, reply in replies.items() if is_lost(reply)]
            if not lost or attempt == AGAIN or time.monotonic() > end:
                break
            for node in lost:
                name = self.names.get(node, f"node {node}")
                print(f"client {name}: its process ended or was too slow to answer; it is asked again.", flush=True)
        return [*replies.values()]


def is_lost(reply: Message) -> bool:
    """Whether Flower says that the process ended, or was too slow to start, before it had answered."""
    return reply.has_error() and reply.error.code == ErrorCode.CLIENT_APP_CRASHED
