"""The parts that all exports share: the finished network of a workdir, its outputs, and images to check a file on."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.data import augment, decode, pipeline, sources, storage
from deitlt_tf.data.sources import taxonomy_files
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import rollup, thresholds
from deitlt_tf.evaluation.predictions import mixed_batches, training_batches
from deitlt_tf.models import interface, resizing
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs import finished
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.files import read_text, write_json
from deitlt_tf.runs.models import load_model, same_classes
from deitlt_tf.serving import priors

MIXED_VIEWS, MIXED_VIEWS_PER_CLASS = 4096, 20  # views to count a teacher's labels on: the larger number of both


class Served(NamedTuple):
    """A finished network with everything that serving it needs.

    model: computes in float32: pixels [B, S, S, 3] -> {"cls", "dist"} logits, or [B, C] with one head.
    class_names: [C]. class_counts: int [C], training images of each class, if known.
    heads: the logits that it returns: "all", "mean", "cls" or "dist"; always "cls" for a network with one head.
    adjustment: float32 [C], which --prior adds to the logits of `interface.main_head`; None without --prior.
    image_size: S, pixels. eval_resize: short side before the centre crop of the evaluation view; 0: no crop.
    max_pixels: largest image that is decoded.
    taxonomy: of the classes, if known. threshold: probability from which an answer at a rank of it is sure; None: there
      are no such answers.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    class_counts: np.ndarray | None
    heads: str
    adjustment: np.ndarray | None
    image_size: int
    eval_resize: int
    max_pixels: int
    taxonomy: Taxonomy | None = None
    threshold: float | None = None

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Pixels [B, S, S, 3], uint8 or float -> `answers`, which every exported file has to reproduce."""
        logits = self.model(tf.cast(images, tf.float32), training=False)
        outputs = answers(logits, heads=self.heads, adjustment=self.adjustment)
        if self.taxonomy is None or self.threshold is None:
            return outputs
        return outputs | rollup.outputs(outputs["probabilities"], self.taxonomy, self.threshold)


def answers(
    logits: tf.Tensor | dict[str, tf.Tensor], *, heads: str, adjustment: np.ndarray | None = None
) -> dict[str, tf.Tensor]:
    """Named outputs, float32 [B, C] each: `logits_<head>` of each head in `heads`, `probabilities` of the main head.

    logits: outputs of a model. heads: "all", "mean", "cls" or "dist".
    adjustment: float32 [C], added to the logits of `interface.main_head` only; None: nothing is added.
    """
    by_head = interface.heads(logits)
    main = interface.main_head(heads)
    if adjustment is not None:
        by_head[main] = by_head[main] + adjustment
    returned = by_head if heads == "all" else {main: by_head[main]}
    return {f"logits_{name}": z for name, z in returned.items()} | {"probabilities": tf.nn.softmax(by_head[main])}


def load_served(recipe: Recipe, *, weights: str, heads: str = "all", prior: str = "", threshold: str = "") -> Served:
    """The network `weights` of a finished run, with these heads, this class prior and this threshold.

    weights: a key of `runs.finished.FILES`. heads: "all", "mean", "cls" or "dist".
    prior: see `priors.log_target`; "": the logits are not adjusted. threshold: see `threshold_of`.
    Raises FileNotFoundError for a run without this network, ValueError for heads that the network does not have or a
    prior that does not fit.
    """
    folder = recipe.run.folder
    network = finished.load(folder, weights=weights)
    model, names, counts = network.model, network.class_names, network.class_counts
    outputs = interface.heads(model.output)
    head = heads if len(outputs) > 1 or heads != "all" else "cls"
    main = interface.main_head(head)
    if main not in outputs:
        path = folder / finished.FILES[weights]
        raise ValueError(f"--heads={heads}: {path} has one head; choose --heads=all or cls.")
    adjustment = None
    if prior:
        adjustment = prior_adjustment(recipe, prior, names, counts, weights=weights, head=main)
    size, resize = evaluation_view(recipe, model, weights=weights)
    taxonomy = taxonomy_of(recipe, network)
    sure = threshold_of(threshold, recipe.run.folder, weights=weights, head=main, taxonomy=taxonomy, prior=prior)
    return Served(model, names, counts, head, adjustment, size, resize, recipe.data.max_pixels, taxonomy, sure)


def threshold_of(
    threshold: str, folder: Path, *, weights: str, head: str, taxonomy: Taxonomy | None, prior: str = ""
) -> float | None:
    """The number of --threshold; None for "".

    threshold: "", a number between 0 and 1, or "auto": the one that `evaluate` has chosen for these weights and head.
    folder: of the run. weights: a key of `runs.finished.FILES`. prior: of the export.
    Raises ValueError for another text, without a taxonomy, and for "auto" where nothing was chosen or with a prior.
    """
    if not threshold:
        return None
    if taxonomy is None:
        raise ValueError(
            f"--threshold={threshold}: the classes of {folder} have no taxonomy. Name one with --taxonomy_file."
        )
    if threshold == "auto":
        if prior:
            raise ValueError("--threshold=auto was chosen without --prior, which changes probabilities: name a number.")
        return thresholds.read(folder, Path(finished.FILES[weights]).stem, head, taxonomy=taxonomy)
    try:
        number = float(threshold)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise ValueError(f"--threshold={threshold} is neither auto nor a number between 0 and 1.")
    return number


def taxonomy_of(recipe: Recipe, network: finished.Finished) -> Taxonomy | None:
    """The taxonomy of a finished network: from --taxonomy_file, where there is that file, else from the run's models.

    Raises ValueError for a file that does not fit the classes.
    """
    file = recipe.data.taxonomy_file
    return taxonomy_files.read(file, network.class_names) if file and storage.is_file(file) else network.taxonomy


def evaluation_view(recipe: Recipe, model: keras.Model, *, weights: str) -> tuple[int, int]:
    """The side of the evaluation view of the network `weights`, and the short side before its crop, pixels.

    Raises ValueError where they do not fit: see `interface.view_size`.
    """
    teacher = weights == "teacher"
    resize = (recipe.teacher if teacher else recipe.student).view.eval_resize
    return interface.view_size(model, resize=resize, flag="teacher_eval_resize" if teacher else "eval_resize"), resize


def prior_adjustment(
    recipe: Recipe,
    prior: str,
    class_names: tuple[str, ...],
    class_counts: np.ndarray | None,
    *,
    weights: str,
    head: str,
) -> np.ndarray:
    """The numbers that a class prior adds to the logits of `head`, float32 [C]: see `priors`.

    prior: see `priors.log_target`. weights: a key of `runs.finished.FILES`. head: "mean", "cls" or "dist".
    Raises ValueError for a teacher, or where the class counts are not known.
    """
    if weights == "teacher":
        raise ValueError("--prior is for the student: the prior in a teacher's logits depends on its objective.")
    if class_counts is None:
        raise ValueError(
            f"--prior needs the class counts of the training data, which {recipe.run.folder} does not hold."
        )
    target = priors.log_target(prior, class_names=class_names, class_counts=class_counts)
    student, teacher = recipe.student, recipe.teacher
    soft = student.distillation.kind == "soft"
    labels = None if head == "cls" or soft else teacher_counts_of(recipe, class_names, class_counts)
    of_teacher = priors.log_assumed_by_teacher(
        class_counts=class_counts,
        loss=teacher.objective.loss,
        sampling=teacher.batch.sampling,
        reweighted=teacher.schedule.reweight_epoch >= 0,
        beta=teacher.schedule.beta,
    )
    assumed = priors.log_assumed(
        class_counts=class_counts,
        teacher_counts=labels,
        teacher_assumed=of_teacher if soft else None,
        sampling=student.batch.sampling,
        logit_adjustment=student.logit_adjustment,
        reweighted=reweighted_share(recipe, weights=weights),
        plain=student.plain,
        beta=student.schedule.beta,
    )
    return priors.adjustment(target=target, assumed=assumed[head])


def reweighted_share(recipe: Recipe, *, weights: str) -> float:
    """`priors.reweighted_share` of a network of a run, by the step and the kind of its weights in results.json.

    weights: a key of `runs.finished.FILES`. A run of an earlier version did not keep them: 1 if it was re-weighted.
    """
    schedule, first = recipe.student.schedule, recipe.student.reweight_epoch
    if not 0 <= first < schedule.epochs:
        return 0.0
    path = recipe.run.folder / "results.json"
    results = json.loads(read_text(path)) if path.is_file() else {}
    entry = results.get("weights", {}).get(Path(finished.FILES[weights]).stem)
    if entry is None or "steps" not in results:
        return 1.0
    reweight_step = first * results["steps"] // schedule.epochs
    return priors.reweighted_share(
        step=entry["step"],
        reweight_step=reweight_step,
        decay=entry.get("decay", 0.0),
        warmup=schedule.ema_warmup,
    )


def teacher_counts_of(recipe: Recipe, class_names: tuple[str, ...], class_counts: np.ndarray) -> np.ndarray | None:
    """How often the teacher named each class while DIST learnt from it, float64 [C]: see `priors.teacher_labels`.

    A teacher that saw mixed views is asked about several thousand of them, as they were before re-weighting; one that
    saw clean views about all training images. Without a teacher: None, and a note on the terminal.
    The first call runs the teacher. Later calls read WORKDIR/teacher_labels.json.
    """
    folder, student = recipe.run.folder, recipe.student
    path, cache = folder / finished.FILES["teacher"], folder / "teacher_labels.json"
    if not path.is_file():
        print(f"--prior: there is no {path}; the labels of DIST are assumed to be as frequent as the classes.")
        return None
    mixed = student.distillation.teacher_sees == "mixed"
    key: dict[str, Any] = {"teacher": hashlib.sha256(path.read_bytes()).hexdigest(), "sampling": student.batch.sampling}
    if mixed:
        key |= {"view": dataclasses.asdict(student.view), "mixing": dataclasses.asdict(student.mixing)}
    key = json.loads(json.dumps(key))
    if cache.is_file() and (content := json.loads(read_text(cache))).get("key") == key:
        return np.array(content["counts"])
    model, _ = load_model(path)
    splits = load_splits(**recipe.data.loading(), folder=folder)
    same_classes(class_names, splits.train.class_names, path=path, num_outputs=model.output_shape[-1])
    count = _mixed_labels if mixed else _clean_labels
    counts = decode.naming_bad_images(
        lambda: count(recipe, model, splits.train, class_counts), splits, max_pixels=recipe.data.max_pixels
    )
    write_json(cache, {"key": key, "counts": counts.tolist()})
    return counts


def _clean_labels(recipe: Recipe, model: keras.Model, source: sources.Source, class_counts: np.ndarray) -> np.ndarray:
    """`priors.teacher_labels` for all training images in the teacher's evaluation view."""
    batches = pipeline.evaluation_batches(
        source,
        size=model.input_shape[1],
        resize=recipe.teacher.view.eval_resize,
        max_pixels=recipe.data.max_pixels,
    )
    sampling = recipe.student.batch.sampling
    return priors.teacher_labels(_teacher(model), batches, class_counts=class_counts, sampling=sampling)


def _mixed_labels(recipe: Recipe, model: keras.Model, source: sources.Source, class_counts: np.ndarray) -> np.ndarray:
    """`priors.mixed_teacher_labels` for views that the run's own augmentation and mixing make of training images."""
    student, num_classes = recipe.student, len(class_counts)
    stream = training_batches(
        source,
        view=augment.training_view(**student.view.training(resize=recipe.data.resize)),
        views=max(MIXED_VIEWS, MIXED_VIEWS_PER_CLASS * num_classes),
        seed=recipe.run.seed,
        sampling=student.batch.sampling,
        max_pixels=recipe.data.max_pixels,
    )
    batches = mixed_batches(
        stream,
        num_classes=num_classes,
        mixing_options=student.mixing.keywords(),
        seed=recipe.run.seed,
        title="labels of the teacher",
    )
    return priors.mixed_teacher_labels(_teacher(model), batches, num_classes=num_classes)


def _teacher(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The teacher as a function: pixels of any size -> logits [B, C]."""

    def logits(images: tf.Tensor) -> tf.Tensor:
        return model(resizing.resize(tf.cast(images, tf.float32), model.input_shape[1]), training=False)

    return tf.function(logits, reduce_retracing=True)


class Images(NamedTuple):
    """The images to check an export on.

    batches: (images uint8 [B, S, S, 3], labels, mask) in the evaluation view.
    class_counts: [C], training images of each class, for the groups; None: random pixels, without labels.
    reading: calls a function that reads the batches; an error about a damaged image then names its file.
    """

    batches: tf.data.Dataset
    class_counts: np.ndarray | None
    reading: Callable[[Callable[[], Any]], Any]


def images_to_check(recipe: Recipe, served: Served, *, weights: str, check_images: int, batch: int = 32) -> Images:
    """Test images of the run's data, or random pixels.

    check_images: how many images, spread evenly over the test set; -1: all of them; 0: 64 images of random pixels, for
      which no data is needed.
    batch: images in a batch.
    Raises ValueError where the data has other classes than the model, or the same in another order.
    """
    if check_images == 0:
        shape = (64, served.image_size, served.image_size, 3)
        pixels = np.random.default_rng(recipe.run.seed).integers(0, 256, shape, dtype=np.uint8)
        random = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(64, np.int32), np.ones(64, np.float32)))
        return Images(random.batch(batch), None, lambda read: read())
    splits = load_splits(**recipe.data.loading(), folder=recipe.run.folder)
    expected, path = splits.train.class_names, recipe.run.folder / finished.FILES[weights]
    same_classes(served.class_names, expected, path=path, num_outputs=len(served.class_names))
    test = splits.test
    if 0 < check_images < len(test):  # spread over the set, because its first images may all be of one class
        test = sources.take(test, np.linspace(0, len(test) - 1, check_images).round().astype(int))
    reading = partial(decode.naming_bad_images, splits=splits, max_pixels=served.max_pixels)
    view: dict[str, Any] = {"size": served.image_size, "resize": served.eval_resize, "max_pixels": served.max_pixels}
    batches = pipeline.evaluation_batches(test, batch=batch, **view)
    return Images(batches, sources.class_counts(splits.train.labels, len(expected)), reading)


def path_of(recipe: Recipe, *, weights: str, out: str, suffix: str) -> Path:
    """The path of an export: `out`, or the path of the model with this suffix. Raises ValueError for another suffix."""
    path = Path(out) if out else (recipe.run.folder / finished.FILES[weights]).with_suffix(suffix)
    if path.suffix != suffix:
        raise ValueError(f"--out={out}: the name of the file has to end in {suffix}.")
    return path


def metadata(served: Served, *, weights: str, prior: str) -> dict[str, str]:
    """The facts that a program needs to run the file: {name: JSON text}."""
    facts: dict[str, Any] = {
        "class_names": list(served.class_names),
        "class_counts": None if served.class_counts is None else served.class_counts.tolist(),
        "image_size": served.image_size,
        "eval_resize": served.eval_resize,
        "heads": served.heads,
        "prior": prior,
        "weights": weights,
    }
    if served.taxonomy is not None:
        facts |= {"taxonomy": served.taxonomy.to_dict(), "threshold": served.threshold}
    return {name: json.dumps(value) for name, value in facts.items()}
