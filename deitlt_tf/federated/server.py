"""What the server keeps between rounds, and what it writes; it sees arrays, class counts and hits, and no image."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.federated import readings, results, shared
from deitlt_tf.federated.client import Reply
from deitlt_tf.federated.heads import Head
from deitlt_tf.federated.networks import Network
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.checkpoints import Checkpoints, Journal
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.models import save_model


def sample(names: Sequence[str], number: int, *, fraction: float, seed: int) -> list[str]:
    """The clients of round `number`, sorted: a share of all, at least one, drawn by seed and round alone."""
    wanted = max(1, round(fraction * len(names)))
    chosen = np.random.default_rng([seed, number]).choice(len(names), wanted, replace=False)
    return [sorted(names)[i] for i in sorted(chosen)]


class Server:
    """The state of a federated run: shared arrays, complete rounds, who took part when. Every round is a checkpoint.

    trained: names of the clients that train. class_names: of all clients, in label order. taxonomy: of the classes,
      kept in the generic model.
    """

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        *,
        trained: Sequence[str],
        class_names: tuple[str, ...],
        taxonomy: Taxonomy | None = None,
    ):
        self.recipe, self.network, self.class_names, self.taxonomy = recipe, network, class_names, taxonomy
        self.folder: Path = recipe.run.folder
        self.shared = shared.start(recipe, network, num_classes=len(class_names))
        self.checkpoints, self.journal = Checkpoints(self.folder, say=tqdm.write), Journal(self.folder)
        self.number = 0  # of the last round that is complete
        self.seconds = 0.0  # CPU time of all clients' training until then
        self.last = dict.fromkeys(trained, 0)  # {client: the last round in which it took part}

    @property
    def rounds(self) -> int:
        """Rounds of the whole run."""
        return self.recipe.federated.rounds.count

    def restore(self) -> None:
        """Sets everything from the newest checkpoint of a round. Raises ValueError for a run of other clients."""
        checkpoint = self.checkpoints.restore({name: x.shape for name, x in self.shared.arrays().items()})
        if checkpoint:
            number, arrays, note = checkpoint
            if note["last"].keys() != self.last.keys():
                raise ValueError(
                    f"{self.folder} holds a run of the clients {', '.join(sorted(note['last']))}, and now they are "
                    f"{', '.join(sorted(self.last))}: bring the same clients together, or choose another `workdir`."
                )
            self.number, self.seconds = number, note["seconds"]
            self.shared, self.last = shared.of_arrays(arrays), note["last"]
            if self.number < self.rounds:
                tqdm.write(f"{self.recipe.federated.method}: going on after round {self.number} of {self.rounds}")
        self.journal.rewind(self.number)

    def sampled(self, number: int) -> list[str]:
        """The clients of a round, sorted by name."""
        fraction = self.recipe.federated.clients.fraction
        return sample([*self.last], number, fraction=fraction, seed=self.recipe.run.seed)

    def measures_after(self, number: int) -> bool:
        """Whether accuracies are measured after round `number`: every `eval_every` rounds but the last."""
        every = self.recipe.run.eval_every
        return bool(every) and number % every == 0 and number < self.rounds

    def complete_round(
        self,
        replies: Sequence[Reply],
        averaged: Mapping[str, np.ndarray],
        *,
        measure: Callable[[], Mapping[str, Any] | None],
        seconds: float = 0.0,
    ) -> None:
        """Takes over what the next round has averaged, measures if it is time, writes journal and checkpoint.

        replies: of the clients of this round, whose arrays are not looked at. averaged: {name: array}; {}: nothing is.
        measure: returns `results.numbers`, or None. seconds: CPU time of the clients' training.
        """
        number = self.number + 1
        self.shared = self.shared.replaced(averaged)
        self.last |= {reply.name: number for reply in replies}
        self.number, self.seconds = number, self.seconds + seconds
        losses, sizes = [reply.loss for reply in replies], [reply.size for reply in replies]
        line: dict[str, Any] = {"step": number, "epoch": number - 1, "clients": len(replies)}
        line |= {"loss": float(np.average(losses, weights=sizes))}
        measured = measure() if self.measures_after(number) else None
        self.journal.add(line | (results.curve_points(measured) if measured else {}))
        # After the journal: `restore` deletes a line that no checkpoint follows.
        self.checkpoints.save(number, self.shared.arrays(), {"last": self.last, "seconds": self.seconds})

    def generic_heads(self) -> dict[str, Head]:
        """{reading: head} of the generic model."""
        return readings.generic(self.recipe.federated, aux=self.shared.aux, fixed=self.shared.fixed)

    def finish(self, measured: dict[str, Any], global_counts: np.ndarray) -> None:
        """Writes results.json and the generic model, and prints the tables. measured: `results.numbers`."""
        measured = measured | {"cpu_seconds": round(self.seconds, 1)}
        write_json(self.folder / "results.json", results.file(self.recipe, measured, class_names=self.class_names))
        reading, _ = readings.saved(self.recipe.federated)
        if reading:
            model = self.network.with_head(self.shared.weights, self.generic_heads()[reading])
            path = self.folder / "student.keras"
            save_model(model, path, class_names=self.class_names, taxonomy=self.taxonomy)
        results.print_tables(measured, global_counts, saved=readings.saved(self.recipe.federated))
