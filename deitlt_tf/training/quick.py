"""A baseline in minutes: a frozen pre-trained network, and a cosine head that knows the class frequencies.

    features of all images, once -> class means -> a cosine head from them, with logit adjustment -> tables, files

The frozen network is a --backbone or a Vision Transformer from a file (--init).

    logits = scale * cos(features - mean, w_c);   loss = CE(logits + tau log(n_c / n), label)

`mean` is that of all training features of a --backbone, which are positive, and 0 for a Vision Transformer. w_c begins
as the mean of class c. So the head starts as the classifier of the nearest class mean, and the row of plain
cross-entropy shows what the tail loses without the adjustment. With --head_init, w_c begins as the class's embedding,
for example of a text, and a row shows what these answer alone; with --epochs=0 this is the model that is written.
"""

import functools
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import losses, optimizers
from deitlt_tf.data import decode, sources, storage
from deitlt_tf.evaluation import hierarchy, intervals, metrics, review
from deitlt_tf.evaluation.feature_store import FeatureStore
from deitlt_tf.evaluation.tables import by_rank_rows, describe_groups, format_intervals, print_by_rank
from deitlt_tf.interop import backbones
from deitlt_tf.models import features
from deitlt_tf.models.resnet import CosineClassifier
from deitlt_tf.recipes.checks import check
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.checkpoints import Journal
from deitlt_tf.runs.data import identity, load_splits
from deitlt_tf.runs.files import write_json, write_text
from deitlt_tf.runs.folder import claim, held, refuse_other
from deitlt_tf.runs.models import save_model
from deitlt_tf.training import adapting
from deitlt_tf.training.networks import student_network

MOMENTUM = 0.9  # of SGD, as in LIFT
# Rows of the table, in its order: {key in results.json: name}.
ROWS = {
    "nearest_mean": "nearest class mean",
    "embeddings": "class embeddings",
    "cross_entropy": "plain cross-entropy",
    "raw": "quick",
}
BLOCK = 8192  # images whose logits are computed at once


def quick(recipe: Recipe) -> None:
    """Computes the features, trains the heads, prints the tables and writes the files of the run.

    Raises ValueError for a recipe, data, weights or a folder that do not fit.
    """
    folder = recipe.run.folder
    refuse_other(folder, **recipe.identity())
    check(recipe, teacher=False)
    if recipe.student.takes_backbone:
        backbones.weights_file(recipe.student.backbone.name)  # before the data are read, which may take minutes
    with held(folder):
        splits = load_splits(**recipe.data.loading(), folder=folder)
        network = student_network(recipe, num_classes=len(splits.train.class_names))
        embeddings = None
        if recipe.student.adaptation.head_init:
            dim = body_of(network).output_shape[-1]
            embeddings = adapting.embedded_classes(recipe, class_names=splits.train.class_names, dim=dim)
        claim(folder, **identity(splits, **recipe.data.loading()), **recipe.identity())
        run = QuickRun(recipe, splits, network, embeddings)
        run.save()
        run.print_tables()
        run.print_review()
    print(f"\n{folder}: {', '.join(sorted(path.name for path in folder.iterdir() if path.name[0] != '.'))}")


def body_of(network: keras.Model) -> keras.Model:
    """The same network up to its features: pixels -> features [B, D], before they are centred."""
    layer = next(iter(adapting.centres(network)), network.layers[-1])
    return keras.Model(network.input, layer.input, name=network.name)


class QuickRun:
    """Features and heads of a recipe.

    network: frozen, with a cosine head. embeddings: of the classes, [C, D], where the heads start; None: class means.
    train, test: features of the splits, centred, unit vectors float32 [N, D]. mean: [D], of the training features.
    """

    def __init__(
        self, recipe: Recipe, splits: sources.Splits, network: keras.Model, embeddings: np.ndarray | None = None
    ):
        self.network, self.embeddings = network, embeddings
        self.recipe, self.splits, self.folder = recipe, splits, recipe.run.folder
        self.class_names = splits.train.class_names
        self.class_counts = sources.class_counts(splits.train.labels, len(self.class_names))
        backbone, view = recipe.student.backbone, recipe.student.view
        body = body_of(network)
        hidden = {} if recipe.student.takes_backbone else asdict(replace(recipe.student.network, init=""))
        store = FeatureStore(
            Path(backbone.features) if backbone.features else self.folder / "features",
            body,
            name=network.name,
            eval_resize=view.eval_resize,
            max_pixels=recipe.data.max_pixels,
            settings=hidden,
        )

        def read(name: str) -> np.ndarray:
            compute = functools.partial(store.features, getattr(splits, name), title=name)
            return decode.naming_bad_images(compute, splits, max_pixels=recipe.data.max_pixels)

        train, test = read("train"), read("test")
        self.mean = train.mean(0, dtype=np.float64).astype(np.float32)
        if not adapting.centres(network):
            self.mean[:] = 0
        self.train, self.test = (unit(values, mean=self.mean) for values in (train, test))
        self.tau = recipe.student.logit_adjustment
        means = features.class_means(self.train, splits.train.labels, len(self.class_names))
        self.journal: list[dict[str, Any]] = []
        self.heads = {"nearest_mean": means.astype(np.float32).T}
        if embeddings is not None:
            self.heads["embeddings"] = embeddings.astype(np.float32).T
        if recipe.student.schedule.epochs:
            self.heads["cross_entropy"] = self.head(tau=0.0, title="plain cross-entropy")
        self.heads["raw"] = self.head(tau=self.tau, title="quick", journal=self.journal)
        self.rows_of_table = {name: title for name, title in ROWS.items() if name in self.heads}

    def head(
        self,
        *,
        tau: float,
        indices: np.ndarray | None = None,
        title: str | None = None,
        journal: list[dict[str, Any]] | None = None,
    ) -> np.ndarray:
        """`trained_head` of the recipe on the training images at `indices`; None: all of them."""
        labels = self.splits.train.labels
        chosen = np.arange(len(labels)) if indices is None else indices
        schedule = self.recipe.student.schedule
        return trained_head(
            self.train,
            labels,
            chosen,
            start=self.embeddings,
            num_classes=len(self.class_names),
            scale=self.recipe.student.backbone.head_scale,
            tau=tau,
            epochs=schedule.epochs,
            batch=self.recipe.student.batch.size,
            learning_rate=self.recipe.student.peak_lr,
            weight_decay=schedule.weight_decay,
            seed=self.recipe.run.seed,
            title=title,
            journal=journal,
        )

    def predicted(self, weight: np.ndarray) -> np.ndarray:
        """The classes that a head chooses for the test images, int [N]."""
        parts = [logits(part, weight, scale=1.0).argmax(-1) for part in in_blocks(self.test)]
        return np.concatenate(parts)

    @functools.cached_property
    def hits(self) -> dict[str, np.ndarray]:
        """{head: `hierarchy.class_hits`, "total": test images of each class}."""
        labels, count, taxonomy = self.splits.test.labels, len(self.class_names), self.splits.taxonomy
        right = {
            name: hierarchy.class_hits(labels, self.predicted(weight), count, taxonomy)
            for name, weight in self.heads.items()
        }
        return right | {"total": np.bincount(labels, minlength=count)}

    @functools.cached_property
    def results(self) -> dict[str, Any]:
        """The content of results.json."""
        counts, total = self.class_counts, self.hits["total"]
        steps = self.journal[-1]["step"] if self.journal else 0
        by_head = {name: {"cls": self.hits[name], "total": total} for name in self.rows_of_table}
        facts = {
            "groups": {convention: describe_groups(counts, convention) for convention in ("shots", "paper")},
            "class_counts": counts.tolist(),
            "student.keras": "the frozen network with the head "
            + ("that was trained with logit adjustment" if steps else "as it started"),
            "steps": steps,
            "weights": {"student": {"step": steps, "kind": "raw"}},
        }
        measured = {name: metrics.accuracies(hits, counts) for name, hits in by_head.items()}
        return measured | facts | hierarchy.results(by_head, counts, self.splits.taxonomy)

    @functools.cached_property
    def rows(self) -> list[review.Row]:
        """The rows of review.csv."""
        train, test = self.splits.train, self.splits.test
        names = paths(train), paths(test)
        seed, title = self.recipe.run.seed, "looking for improbable labels"
        judged = review.out_of_fold(train.labels, fit=self.classifier_of, seed=seed, title=title)
        rows = review.mislabelled(judged, train.labels, names[0], self.class_names)
        if len(train) * len(test) <= review.PAIRS:
            pair = (self.test, self.train) if self.mean.any() else centred(self.test, self.train)
            index, cosine = review.nearest(*pair, title="looking for test images in train")
            labels = train.labels, test.labels
            rows += review.duplicates(index, cosine, labels=labels, names=names, class_names=self.class_names)
        else:
            print(f"note: {len(test)} x {len(train)} images are too many to look for duplicates of test images.")
        rows += review.confused(judged, train.labels, self.class_names)
        counts = {"train": self.class_counts, "test": self.hits["total"]}
        return rows + review.too_small(counts, self.class_names)

    def classifier_of(self, chosen: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """A head trained on the images at `chosen`: (indices) -> logits, with their class shares as the prior."""
        weight = self.head(tau=self.tau, indices=chosen)
        counts = sources.class_counts(self.splits.train.labels[chosen], len(self.class_names))
        scale, prior = self.recipe.student.backbone.head_scale, losses.log_prior(counts, tau=self.tau)
        return lambda indices: logits(self.train[indices], weight, scale=scale) + prior

    def save(self) -> None:
        """Writes student.keras, metrics.jsonl, review.csv and, when all else is there, results.json."""
        taxonomy = self.splits.taxonomy
        for layer in adapting.centres(self.network):
            layer.mean.assign(self.mean)
        self.network.layers[-1].weight.assign(self.heads["raw"])
        save_model(self.network, self.folder / "student.keras", class_names=self.class_names, taxonomy=taxonomy)
        journal = Journal(self.folder)
        journal.rewind(-1)
        for line in self.journal:
            journal.add(line)
        write_text(self.folder / "review.csv", review.as_csv(self.rows))
        write_json(self.folder / "results.json", self.results)

    def print_tables(self) -> None:
        """Accuracies by group with intervals, one table for each convention, and by rank where there is a taxonomy."""
        right = metrics.of_classes(self.hits)
        bounds = {
            row: intervals.accuracy(right[name], self.hits["total"], self.class_counts)
            for name, row in self.rows_of_table.items()
        }
        for convention in ("shots", "paper"):
            title = "top-1 accuracy, % (95 % interval); " + describe_groups(self.class_counts, convention)
            rows = {name: bound[convention] for name, bound in bounds.items()}
            tqdm.write("\n" + format_intervals(rows, title=title))
        print_by_rank(by_rank_rows(self.results, self.rows_of_table), self.class_counts)

    def print_review(self) -> None:
        """How many rows of each kind review.csv has."""
        words = {
            "mislabelled": "training images whose label is improbable",
            "duplicate": "test images that are nearly training images",
            "confused": "pairs of classes taken for each other",
            "too_small": "classes with fewer than 10 images in a split",
        }
        kinds = [row.kind for row in self.rows]
        print("\nto look at, in review.csv: " + ", ".join(f"{kinds.count(k)} {text}" for k, text in words.items()))


def paths(source: sources.Source) -> list[str]:
    """Names of the images as other programs find them: absolute paths, URLs, or "image 17" where there is no file."""
    names = sources.image_names(source)
    local = source.kind == "paths"
    return [os.path.abspath(name) if local and not storage.is_url(name) else name for name in names]


def unit(values: np.ndarray, *, mean: np.ndarray) -> np.ndarray:
    """(values - mean) / |values - mean|, in place: float32 [N, D]."""
    values -= mean
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return values


def centred(test: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors [T, D] and [N, D] of both without the mean of `train`.

    Features of Vision Transformers share a large mean, which their heads need and which makes all images near.
    """
    mean = train.mean(0)
    return unit(test.copy(), mean=mean), unit(train.copy(), mean=mean)


def in_blocks(values: np.ndarray) -> list[np.ndarray]:
    """The rows in parts of BLOCK."""
    return [values[start : start + BLOCK] for start in range(0, len(values), BLOCK)]


def logits(directions: np.ndarray, weight: np.ndarray, *, scale: float) -> np.ndarray:
    """scale * cos(x, w_c), float32 [N, C]. directions: unit vectors [N, D]. weight: [D, C]."""
    return scale * (directions @ (weight / np.maximum(np.linalg.norm(weight, axis=0), 1e-12)))


def trained_head(
    directions: np.ndarray,
    labels: np.ndarray,
    chosen: np.ndarray,
    *,
    start: np.ndarray | None = None,
    num_classes: int,
    scale: float,
    tau: float,
    epochs: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    title: str | None = None,
    journal: list[dict[str, Any]] | None = None,
) -> np.ndarray:
    """The weights [D, C] of a cosine head: from class means, CE(scale * cos + tau log(n_c / n)), SGD with a cosine.

    directions: unit vectors [N, D]. labels: int [N]. chosen: indices of the images to train on, some of every class.
    start: [C, D], where the head begins. Defaults to the class means of the chosen images.
    learning_rate: peak. title: of a progress bar; None: no bar. journal: gets a line for each epoch.
    The order of images depends on seed and epoch alone.
    """
    classifier = CosineClassifier(num_classes, scale=scale)
    classifier.build((None, directions.shape[1]))
    counts = sources.class_counts(labels[chosen], num_classes)
    if start is None:
        start = features.class_means(directions[chosen], labels[chosen], num_classes)
    classifier.weight.assign((start / np.maximum(np.linalg.norm(start, axis=1, keepdims=True), 1e-12)).T)
    steps = max(1, len(chosen) // batch)
    rate = optimizers.WarmupCosine(
        peak=learning_rate, epochs=epochs, steps_per_epoch=steps, warmup_epochs=0, warmup_lr=0.0, min_lr=0.0
    )
    optimizer = optimizers.SGD(rate, momentum=MOMENTUM, l2=weight_decay)
    optimizer.build([classifier.weight])
    prior = tf.constant(losses.log_prior(counts, tau=tau))

    @tf.function(reduce_retracing=True)
    def step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(losses.cross_entropy(y, classifier(x) + prior))
        optimizer.apply(tape.gradient(loss, [classifier.weight.value]), [classifier.weight])
        return loss

    for epoch in tqdm(range(epochs), unit="epoch", leave=False, **decode.bar_of(title)):
        order = chosen[np.random.default_rng([seed, epoch]).permutation(len(chosen))]
        total = 0.0
        for number in range(steps):
            rows = order[number * batch : (number + 1) * batch]
            total += float(step(tf.constant(directions[rows]), tf.constant(labels[rows])))
        if journal is not None:
            journal.append({"step": (epoch + 1) * steps, "epoch": epoch, "loss": total / steps})
    return classifier.weight.numpy()
