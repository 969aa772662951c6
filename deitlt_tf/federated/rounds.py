"""All clients in one process: their rounds, one after the other, and what is written at the end.

After every round the workdir holds a checkpoint of what the server holds, and every client's folder what this client
keeps. A round is a function of both, so a run that was killed repeats at most one round, to the same bits.
"""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.data.sources import taxonomy_files
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.federated import aggregation, images, networks, readings, results
from deitlt_tf.federated.client import Client, Reply, count_hits, features_of, make_update
from deitlt_tf.federated.images import Images
from deitlt_tf.federated.server import Server
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.data import identity, load_splits
from deitlt_tf.runs.fingerprint import fingerprints
from deitlt_tf.runs.folder import claim, held, refuse_other
from deitlt_tf.training.loop import sigterm

ALL = "all"  # name of the only client of central training


def train(recipe: Recipe) -> None:
    """Trains all clients of a recipe, from the last round to the last one; prints tables and writes files.

    Raises ValueError for a recipe that does not fit data or folder, FloatingPointError that names a client at a NaN,
    and SystemExit after a SIGTERM.
    """
    folder = recipe.run.folder
    refuse_other(folder, **recipe.identity())
    with held(folder):
        splits, clients, taxonomy = load_clients(recipe)
        federation = Federation(recipe, clients, splits, taxonomy)
        with sigterm() as requested:
            federation.fit(requested)
        federation.finish()


def load_clients(recipe: Recipe) -> tuple[Splits | None, list[Images], Taxonomy | None]:
    """(the data set that is divided, or None; the images of each client; the taxonomy); claims the workdir."""
    folder, file = recipe.run.folder, recipe.data.taxonomy_file
    splits = None
    if recipe.federated.clients.dirs:
        clients = images.of_folders(recipe, workdir=folder)
        taxonomy = taxonomy_files.read(file, clients[0].class_names) if file else None
        data = {client.name: fingerprints(client.splits)["train"] for client in clients}
        claim(folder, class_names=clients[0].class_names, data=data, **recipe.identity())
    else:
        splits = load_splits(**recipe.data.loading(), folder=folder)
        claim(folder, **identity(splits, **recipe.data.loading()), **recipe.identity())
        clients, taxonomy = images.divided(splits, recipe), splits.taxonomy
    sizes = [len(client.train) for client in clients]
    print(f"{len(clients)} clients of {min(sizes)} to {max(sizes)} training images, median {np.median(sizes):g}")
    return splits, clients, taxonomy


class Federation:
    """A server and all its clients in one process.

    clients: their images. splits: the data set that is divided among them; None where each has a folder of its own.
    taxonomy: of the classes.
    """

    def __init__(
        self, recipe: Recipe, clients: Sequence[Images], splits: Splits | None, taxonomy: Taxonomy | None = None
    ):
        self.recipe, self.splits, self.taxonomy = recipe, splits, taxonomy
        self.images = {client.name: client for client in clients}
        classes = clients[0].class_names
        self.global_counts = np.sum([client.counts for client in clients], 0)
        self.network = networks.build(recipe, num_classes=len(classes))
        central = recipe.federated.method == "central"
        if central and ALL in self.images:
            raise ValueError(f"a client is called {ALL!r}, as is what central training learns from: rename its folder.")
        trained = [together(clients)] if central else clients
        names = [client.name for client in trained]
        self.server = Server(recipe, self.network, trained=names, class_names=classes, taxonomy=taxonomy)
        self.update = make_update(recipe, self.network, num_classes=len(classes))
        self.clients = {client.name: self.client(client) for client in clients}
        self.trained = {client.name: self.client(client) for client in trained} if central else self.clients

    def client(self, own: Images) -> Client:
        """The client of these images, in its folder below the workdir."""
        folder = self.recipe.run.folder / "clients" / own.name
        return Client(
            own,
            recipe=self.recipe,
            network=self.network,
            update=self.update,
            folder=folder,
            sharing=len(self.images),
            taxonomy=self.taxonomy,
        )

    def fit(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """All rounds that are left. stopping: whether SIGTERM has arrived; then SystemExit."""
        server, settings = self.server, self.recipe.federated
        server.restore()
        chosen_in = {number: server.sampled(number) for number in range(server.number + 1, server.rounds + 1)}
        total = sum(len(self.trained[name].images.train) for names in chosen_in.values() for name in names)
        with tqdm(
            total=total * settings.rounds.epochs, desc=settings.method, unit="img", unit_scale=True,
            mininterval=0.5 if sys.stderr.isatty() else 30, dynamic_ncols=True,
        ) as bar:  # fmt: skip
            for number, names in chosen_in.items():
                began, replies = time.process_time(), []
                for name in names:
                    if stopping():
                        raise SystemExit(
                            f"{settings.method}: stopped by SIGTERM in round {number} of {server.rounds}; the same "
                            f"command goes on after round {server.number}."
                        )
                    bar.set_postfix({"round": number, "client": name}, refresh=False)
                    last = server.last[name]
                    replies.append(self.trained[name].train(server.shared, number, last=last, progress=bar.update))
                self.complete_round(replies, seconds=time.process_time() - began)

    def complete_round(self, replies: Sequence[Reply], *, seconds: float) -> None:
        """Averages and hands over to the server. Raises ValueError as `aggregation.check_reply` does."""
        server, averaged = self.server, {}
        if self.recipe.federated.method != "local":
            expected = server.shared.averaged()
            for reply in replies:
                aggregation.check_reply(reply.name, reply.arrays, expected, size=reply.size, loss=reply.loss)
            averaged = aggregation.mean([reply.arrays for reply in replies], [reply.size for reply in replies])
        # Curves are of validation images where every client has some, else of test images.
        split = "val" if all(client.val for client in self.images.values()) else "test"
        server.complete_round(replies, averaged, measure=lambda: self.measure(split), seconds=seconds)

    def measure(self, split: str, *, by_rank: bool = False) -> dict[str, Any]:
        """`results.numbers`: personal ones on clients' images of a split, generic ones on all of it.

        by_rank: whether to add those of each rank, if there is a taxonomy.
        Where every client has a folder of its own, the generic ones are those of all clients' images together.
        """
        server = self.server
        hits = {
            name: client.hits(
                server.shared, last=server.last.get(name, 0), global_counts=self.global_counts, split=split
            )
            for name, client in self.clients.items()
        }
        whole: Source | None = getattr(self.splits, split) if self.splits else None
        generic, heads = None, server.generic_heads()
        if whole is not None and heads:
            self.update.write(server.shared.weights)
            features = features_of(self.update, whole, recipe=self.recipe)
            classes = len(self.global_counts)
            generic = count_hits(features, whole.labels, heads, num_classes=classes, taxonomy=self.taxonomy)
        counts = {name: client.counts for name, client in self.images.items()}
        return results.numbers(hits, generic=generic, counts=counts, taxonomy=self.taxonomy if by_rank else None)

    def finish(self) -> None:
        """Measures on the test images; writes results.json, the generic model and all personal models."""
        server = self.server
        measured = self.measure("test", by_rank=True)
        for name, client in tqdm(self.clients.items(), desc="personal models", leave=False, disable=None):
            client.save_personal(server.shared, last=server.last.get(name, 0), global_counts=self.global_counts)
        server.finish(measured, self.global_counts)
        names = "student.keras (the generic model), " if readings.saved(self.recipe.federated)[0] else ""
        print(f"\n{server.folder}: {names}clients/*/student.keras (the personal models), results.json, metrics.jsonl")


def together(clients: Sequence[Images]) -> Images:
    """One client with the training images of all, for central training."""
    parts = [client.train for client in clients]
    named = [part.names for part in parts if part.names is not None]
    train = Source(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
        clients[0].class_names,
        np.concatenate(named) if len(named) == len(parts) else None,
    )
    return Images(ALL, train, None, None)
