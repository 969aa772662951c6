"""One client: its images, its folder, what it does in a round, and its personal model."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deitlt_tf.data import augment, decode, pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import hierarchy
from deitlt_tf.federated import heads, readings
from deitlt_tf.federated.heads import Head, new_head
from deitlt_tf.federated.images import Images
from deitlt_tf.federated.networks import Network, view_of
from deitlt_tf.federated.shared import Shared, head_arrays, head_of
from deitlt_tf.federated.updates import ClientUpdate
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.fingerprint import fingerprints
from deitlt_tf.runs.folder import claim
from deitlt_tf.runs.models import save_model

KEPT = 3  # states of a client, so that the server may go back a round or two
GENERIC = "generic model"  # the reading of a client before personalisation
BATCH = 100  # images of an evaluation step

Hits = dict[str, np.ndarray]
Progress = Callable[[int], object]


@dataclass(frozen=True, eq=False)
class Reply:
    """What a client sends after a round.

    arrays: {name: array} of what is averaged, {} where nothing is. size: its training images. loss: mean over batches.
    """

    name: str
    arrays: dict[str, np.ndarray]
    size: int
    loss: float


def make_update(recipe: Recipe, network: Network, *, num_classes: int) -> ClientUpdate:
    """The `ClientUpdate` of a recipe, which several clients of one process share."""
    settings = recipe.federated
    return ClientUpdate(
        network.features,
        num_classes,
        fixed=settings.has_fixed_head,
        local=settings.has_local_heads,
        learning_rate=settings.rounds.lr,
        momentum=settings.rounds.momentum,
        proximal=settings.proximal,
    )


class Client:
    """A client in training. folder: its own, which holds what never leaves it: local head, personal model.

    update: of `make_update`. sharing: how many clients share the memory for decoded images. Defaults to 1.
    taxonomy: of the classes, for hits of each rank; it is kept in the personal model.
    Raises ValueError if the folder belongs to another recipe, other classes or other images.
    """

    def __init__(
        self,
        images: Images,
        *,
        recipe: Recipe,
        network: Network,
        update: ClientUpdate,
        folder: Path,
        sharing: int = 1,
        taxonomy: Taxonomy | None = None,
    ):
        self.images, self.recipe, self.network, self.update = images, recipe, network, update
        self.name, self.counts, self.folder, self.taxonomy = images.name, images.counts, folder, taxonomy
        self.seed = seed_of(f"{recipe.run.seed} {self.name}")
        data = {name: x for name, x in fingerprints(images.splits).items() if getattr(images, name) is not None}
        claim(folder, class_names=images.train.class_names, data=data, **recipe.identity())
        self.checkpoints = Checkpoints(folder, keep=KEPT)
        limit = recipe.data.decoded_bytes / sharing
        self.source = pipeline.decoded(images.train, limit=limit, max_pixels=recipe.data.max_pixels)
        settings = view_of(recipe).training(resize=recipe.data.resize)
        self.view = augment.training_view(**settings)

    # ---- a round

    def train(self, shared: Shared, number: int, *, last: int, progress: Progress | None = None) -> Reply:
        """Trains on all own images for the epochs of round `number`, from what the server holds.

        last: the round in which this client took part before; 0: none. progress: called with the number of images of
          each batch.
        The same call gives the same numbers, so a round may be repeated.
        Raises FloatingPointError that names this client at a loss that is not finite, ValueError for a lost state.
        """
        rounds = self.recipe.federated.rounds
        start, local = self.state(shared, last)
        batches = pipeline.whole_epochs(
            self.source,
            view=self.view,
            batch=rounds.batch_size,
            first=(number - 1) * rounds.epochs,
            end=number * rounds.epochs,
            seed=self.seed,
            max_pixels=self.recipe.data.max_pixels,
        )
        heads_by_name = {"fixed": start.fixed, "aux": start.aux, "local": local}
        present = {name: head for name, head in heads_by_name.items() if head is not None}
        seed = self.seed ^ number
        try:
            weights, trained, loss = decode.naming_bad_images(
                lambda: self.update.train(start.weights, present, reporting(batches, progress), seed=seed),
                self.images.splits,
                max_pixels=self.recipe.data.max_pixels,
            )
        except FloatingPointError as error:
            raise FloatingPointError(
                f"client {self.name}: in round {number} {error} A lower --federated_lr may help."
            ) from error
        arrays = Shared(weights, trained["aux"], start.fixed).averaged()
        alone = self.recipe.federated.method == "local"
        stays = head_arrays("local", trained["local"]) if local else {}
        if alone:
            stays = arrays
        if stays:
            self.checkpoints.save(number, stays, {"loss": loss})
        return Reply(self.name, {} if alone else arrays, len(self.images.train), loss)

    def state(self, shared: Shared, last: int) -> tuple[Shared, Head | None]:
        """(what this client starts from, its local head or None) after round `last`, in which it took part."""
        settings = self.recipe.federated
        if settings.method == "local":
            return shared.replaced(self.kept(shared.averaged(), last=last)), None
        if not settings.has_local_heads:
            return shared, None
        width, classes = shared.aux.kernel.shape
        start = head_arrays("local", new_head(width, classes, seed=self.seed))
        return shared, head_of("local", self.kept(start, last=last))

    def kept(self, start: dict[str, np.ndarray], *, last: int) -> dict[str, np.ndarray]:
        """What the client kept after round `last`; `start`, with the same names and shapes, before its first round.

        Raises ValueError where its folder does not hold that round.
        """
        if not last:
            return start
        restored = self.checkpoints.restore({name: array.shape for name, array in start.items()}, step=last)
        if restored is None:
            raise ValueError(
                f"client {self.name} took part in round {last}, but {self.checkpoints.folder} does not hold what it "
                "kept then: put that folder back, or start the run again in new folders."
            )
        return restored[1]

    # ---- numbers

    def readings(self, shared: Shared, *, last: int, global_counts: np.ndarray) -> tuple[Shared, dict[str, Head]]:
        """(weights, {reading: head}): the personal ones, and GENERIC, the generic model as it is."""
        settings = self.recipe.federated
        own, local = self.state(shared, last)
        personal = readings.personal(
            settings, aux=own.aux, local=local, local_counts=self.counts, global_counts=global_counts
        )
        name, _ = readings.saved(settings)
        if name:
            personal[GENERIC] = readings.generic(settings, aux=shared.aux, fixed=shared.fixed)[name]
        return own, personal

    def hits(self, shared: Shared, *, last: int, global_counts: np.ndarray, split: str) -> dict[str, Hits]:
        """{"generic", "personal": what `count_hits` returns}, the generic one {} where nothing is generic.

        split: val or test, of this client's images; {} where it has none.
        """
        source = getattr(self.images, split)
        if source is None:
            return {}
        own, personal = self.readings(shared, last=last, global_counts=global_counts)
        generic = readings.generic(self.recipe.federated, aux=shared.aux, fixed=shared.fixed)
        self.update.write(own.weights)
        features = decode.naming_bad_images(
            lambda: features_of(self.update, source, recipe=self.recipe),
            self.images.splits,
            max_pixels=self.recipe.data.max_pixels,
        )
        counting: dict[str, Any] = {"num_classes": len(self.counts), "taxonomy": self.taxonomy}
        return {
            "generic": count_hits(features, source.labels, generic, **counting) if generic else {},
            "personal": count_hits(features, source.labels, personal, **counting),
        }

    def save_personal(self, shared: Shared, *, last: int, global_counts: np.ndarray) -> Path:
        """Writes the personal model to the client's folder, as a student that all our tools read."""
        own, personal = self.readings(shared, last=last, global_counts=global_counts)
        model = self.network.with_head(own.weights, personal[readings.saved(self.recipe.federated)[1]])
        path = self.folder / "student.keras"
        save_model(model, path, class_names=self.images.train.class_names, taxonomy=self.taxonomy)
        return path


def seed_of(text: str) -> int:
    """A number below 2^31 that looks random, and is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) // 2


def reporting(batches: tf.data.Dataset, progress: Progress | None) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The batches; `progress` is called with the number of images of each."""
    for images, labels in batches:
        yield images, labels
        if progress:
            progress(len(labels))


def features_of(update: ClientUpdate, source: Source, *, recipe: Recipe) -> np.ndarray:
    """[N, D]: the features of the evaluation views of all images, with the weights that `update` has now."""
    view = view_of(recipe)
    batches = pipeline.evaluation_batches(
        source, size=view.image_size, resize=view.eval_resize, batch=BATCH, max_pixels=recipe.data.max_pixels
    )
    return np.concatenate([update.infer(tf.cast(images, tf.float32)).numpy() for images, _, _ in batches])[
        : len(source)
    ]


def count_hits(
    features: np.ndarray,
    labels: np.ndarray,
    by_reading: dict[str, Head],
    *,
    num_classes: int,
    taxonomy: Taxonomy | None = None,
) -> Hits:
    """{reading: `hierarchy.class_hits`, "total": images of each class}: int [C] each, or [R, C] with a taxonomy."""
    predicted = {name: heads.logits(features, head).argmax(1) for name, head in by_reading.items()}
    right = {name: hierarchy.class_hits(labels, x, num_classes, taxonomy) for name, x in predicted.items()}
    return right | {"total": np.bincount(labels, minlength=num_classes)}
