"""The Flower app of the server: greet the clients, run all rounds, measure, write the generic model.

    flwr run APP LINK --run-config='flagfile="/srv/deitlt/server.cfg"' --stream

The server has no images. A run that was stopped in mid-round goes on after the last complete round when it is started
again with the same flag file.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, MessageType
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, Strategy

from deitlt_tf.federated import messages, networks, node, results
from deitlt_tf.federated.asking import PatientGrid
from deitlt_tf.federated.server import Server
from deitlt_tf.federated.strategy import SharedMean, sorted_replies
from deitlt_tf.recipes import checks, command_line
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.folder import claim, held, refuse_other

SAME_VERSION = "install the same version there."

app = ServerApp()
POLL = 2  # seconds between two looks at the list of nodes


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs a recipe with all clients. Raises one sentence for whatever stops it; then no round is lost."""
    from deitlt_tf.devices.strategy import prepare

    config = dict(context.run_config)
    recipe = recipe_of(config)
    settings = {name: float(config[f"dp-{name}"]) for name in ("noise", "clip") if f"dp-{name}" in config}
    prepare(**recipe.run.numerics())
    with held(recipe.run.folder):
        Coordinator(recipe, grid, timeout=float(config.get("timeout", 86400)), **settings).run()


def recipe_of(config: Mapping[str, Any]) -> Recipe:
    """The recipe of --run-config. Raises ValueError for one that clients on several machines cannot run."""
    if not config.get("flagfile"):
        raise ValueError("the server needs its flag file: flwr run ... --run-config='flagfile=\"FILE\"'.")
    recipe = command_line.recipe_of(["server", f"--flagfile={config['flagfile']}"])
    if not recipe.run.workdir:
        raise ValueError(f"{config['flagfile']} has no --workdir, where the server keeps the run.")
    if recipe.federated.method not in node.METHODS:
        raise ValueError(
            f"--federated_method={recipe.federated.method} needs no server: python -m deitlt_tf.federate runs it."
        )
    checks.check_federated(recipe)
    refuse_other(recipe.run.folder, **recipe.identity())
    return recipe


class Coordinator:
    """One run: the clients that take part, and the messages to them.

    timeout: seconds for the answers of a round. noise, clip: of `private`. Default to no noise.
    """

    def __init__(self, recipe: Recipe, grid: Grid, *, timeout: float, noise: float = 0.0, clip: float = 1.0):
        self.recipe, self.timeout, self.noise, self.clip = recipe, timeout, noise, clip
        self.grid = PatientGrid(grid)
        self.common = {"flags": json.dumps(recipe.shared_flags())}
        self.nodes: dict[str, int] = {}
        self.counts: dict[str, np.ndarray] = {}

    def run(self) -> None:
        """Everything from the first greeting to the last file."""
        recipe = self.recipe
        class_names = self.greet(self.wait_for_nodes())
        claim(recipe.run.folder, class_names=class_names, **recipe.identity())
        network = networks.build(recipe, num_classes=len(class_names))
        server = Server(recipe, network, trained=sorted(self.nodes), class_names=class_names)
        server.restore()
        strategy = SharedMean(server, self.nodes, common=self.common, measure=lambda: self.measure(server, "val"))
        sampled = len(server.sampled(1))
        with_noise = private(strategy, noise=self.noise, clip=self.clip, sampled=sampled) if self.noise else strategy
        with_noise.start(
            grid=self.grid,
            initial_arrays=messages.array_record(server.shared.averaged()),
            num_rounds=server.rounds - server.number,
            timeout=self.timeout,
            evaluate_fn=strategy.after_round,
        )
        measured = self.measure(server, "test", save=True)
        assert measured is not None
        server.finish(measured, np.sum(list(self.counts.values()), 0))
        print(f"\n{server.folder}: student.keras (the generic model), results.json, metrics.jsonl")

    def wait_for_nodes(self) -> list[int]:
        """The nodes, when as many are connected as the run has clients. Raises RuntimeError after the timeout."""
        wanted, began, printed = self.recipe.federated.clients.count, time.monotonic(), -1
        while len(ids := self.grid.get_node_ids()) != wanted:
            if len(ids) != printed:
                print(f"waiting for clients: {len(ids)} nodes are connected, and the run has {wanted}.", flush=True)
                printed = len(ids)
            if time.monotonic() - began > self.timeout:
                raise RuntimeError(
                    f"{len(ids)} nodes are connected, and the run has --federated_clients={wanted}: start or stop some."
                )
            time.sleep(POLL)
        return ids

    def greet(self, ids: list[int]) -> tuple[str, ...]:
        """Asks all nodes who they are; returns the classes, which have to be the same everywhere.

        Raises RuntimeError for a node that fails, ValueError for two of one name or of other classes.
        """
        numbered = {f"node {i}": i for i in ids}
        sent = [Message(messages.content(self.common), i, MessageType.QUERY) for i in ids]
        replies = sorted_replies(numbered, self.grid.send_and_receive(sent, timeout=self.timeout), what="greeting")
        classes: dict[str, tuple[str, ...]] = {}
        for reply in replies.values():
            greeting = messages.config_of(reply)
            name = str(greeting["name"])
            if name in self.nodes:
                raise ValueError(f"two nodes have the name {name}: give each its own in --node-config.")
            if Path(name).name != name or name == "..":
                raise ValueError(
                    f"a node has the name {name!r}, which is not that of a file: choose letters and digits."
                )
            self.nodes[name] = reply.metadata.src_node_id
            self.grid.names[reply.metadata.src_node_id] = name
            self.counts[name] = np.array(greeting["counts"], np.int64)
            classes[name] = tuple(greeting["class_names"])
            if self.counts[name].shape != (len(classes[name]),) or self.counts[name].min(initial=0) < 0:
                raise ValueError(f"client {name} reports other counts than one for each class: {SAME_VERSION}")
        first = min(classes)
        for name in sorted(classes):
            if sentence := node.other_classes(first, classes[first], name, classes[name]):
                raise ValueError(sentence)
        sizes = ", ".join(f"{name} {counts.sum()}" for name, counts in sorted(self.counts.items()))
        print(f"{len(self.nodes)} clients with training images: {sizes}", flush=True)
        return classes[first]

    def measure(self, server: Server, split: str, *, save: bool = False) -> dict[str, Any] | None:
        """`results.numbers` from the hits that all clients report; None where nobody has images of the split.

        save: whether clients write their personal models.
        """
        everyone = np.sum(list(self.counts.values()), 0)
        config = {"global_counts": everyone.tolist(), "split": split, "save": save} | self.common
        sent = [
            Message(
                messages.content(config | {"last": server.last[name]}, arrays=server.shared.arrays()),
                self.nodes[name],
                MessageType.EVALUATE,
            )
            for name in sorted(self.nodes)
        ]
        what = f"measuring after round {server.number}"
        replies = sorted_replies(self.nodes, self.grid.send_and_receive(sent, timeout=self.timeout), what=what)
        hits = {name: hits_of(messages.config_of(reply), len(everyone), name) for name, reply in replies.items()}
        rows = {name: {part: {*each} for part, each in parts.items()} for name, parts in hits.items() if parts}
        if other := [name for name in rows if rows[name] != rows[min(rows)]]:
            raise ValueError(f"client {other[0]} reports other rows than client {min(rows)}: {SAME_VERSION}")
        return results.numbers(hits, generic=None, counts=self.counts) if any(hits.values()) or save else None


def private(strategy: SharedMean, *, noise: float, clip: float, sampled: int) -> Strategy:
    """Flower's central differential privacy around a strategy: updates are clipped, and the mean gets noise.

    noise: multiplier of the Gaussian noise; 1 or more for strong privacy. clip: largest length of a client's update,
      over all arrays together. sampled: clients of a round.
    The server sees what clients send before that, so they have to trust it.
    """
    return DifferentialPrivacyServerSideFixedClipping(
        strategy, noise_multiplier=noise, clipping_norm=clip, num_sampled_clients=sampled
    )


def hits_of(config: Mapping[str, Any], num_classes: int, name: str) -> dict[str, dict[str, np.ndarray]]:
    """The hits that a client reports. Raises ValueError for anything but a few rows of num_classes whole numbers."""
    text = str(config.get("hits", ""))
    try:
        if len(text) > 1000 * (num_classes + 10):
            raise ValueError(f"{len(text)} letters")
        hits = {
            part: {row: np.array(counts, np.int64) for row, counts in rows.items()}
            for part, rows in json.loads(text).items()
        }
        if hits and hits.keys() != {"generic", "personal"}:
            raise ValueError(f"they are of {', '.join(hits)}")
        for counts in (counts for rows in hits.values() for counts in rows.values()):
            if counts.shape != (num_classes,) or counts.min(initial=0) < 0:
                raise ValueError("other classes")
        if any(rows and "total" not in rows for rows in hits.values()):
            raise ValueError("without the number of images")
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"client {name} reports hits that cannot be read ({error}): {SAME_VERSION}") from error
    return hits
