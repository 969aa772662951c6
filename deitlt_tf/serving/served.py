"""What all exports share: the finished network of a workdir, what it answers, the images to check an export on."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.data import decode, pipeline, sources
from deitlt_tf.models import interface
from deitlt_tf.recipes.recipe import Recipe, View
from deitlt_tf.runs import finished
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.models import load_model, same_classes
from deitlt_tf.serving import priors


class Served(NamedTuple):
    """A finished network with all that serving it takes.

    model: keras.Model, float32: pixels [B, S, S, 3] -> {"cls", "dist"} logits, or [B, C] with one head.
    heads: which logits it answers: "all", "mean", "cls" or "dist"; always "cls" for a network with one head.
    adjustment: float32 [C], what --prior adds to the logits of the `metrics.main_head`; None without --prior.
    eval_resize: short side before the centre crop of the evaluation view; 0: resize without a crop.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    class_counts: np.ndarray | None
    heads: str
    adjustment: np.ndarray | None
    image_size: int
    eval_resize: int
    max_pixels: int

    def __call__(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Pixels [B, S, S, 3], uint8 or float -> `answers`: what every exported file has to repeat."""
        logits = self.model(tf.cast(images, tf.float32), training=False)
        return answers(logits, heads=self.heads, adjustment=self.adjustment)


def answers(logits, *, heads: str, adjustment: np.ndarray | None = None) -> dict[str, tf.Tensor]:
    """Named outputs, float32 [B, C] each: `logits_<head>` of the asked heads, `probabilities` of the main head.

    With `adjustment` the logits of `metrics.main_head` are the adjusted ones; the other heads' stay as they are.
    """
    found = interface.heads(logits)
    main = interface.main_head(heads)
    if adjustment is not None:
        found[main] = found[main] + adjustment
    shown = found if heads == "all" else {main: found[main]}
    return {f"logits_{name}": z for name, z in shown.items()} | {"probabilities": tf.nn.softmax(found[main])}


def load_served(recipe: Recipe, *, weights: str, heads: str = "all", prior: str = "") -> Served:
    """The network `weights` of a finished run, with the heads and the class prior that are wanted.

    weights: a key of `runs.finished.FILES`. heads: "all", "mean", "cls" or "dist". prior: see `prior_adjustment`; ""
    leaves the logits as they are.
    Raises FileNotFoundError for a run without this network, ValueError for heads that it does not have or a prior that
    does not fit.
    """
    folder = recipe.run.folder
    model, names, counts = finished.load(folder, weights=weights)
    outputs = interface.heads(model.output)
    head = heads if len(outputs) > 1 or heads != "all" else "cls"
    main = interface.main_head(head)
    if main not in outputs:
        path = folder / finished.FILES[weights]
        raise ValueError(f"--heads={heads}: {path} has one head; choose --heads=all or cls.")
    adjustment = None
    if prior:
        adjustment = prior_adjustment(recipe, prior, names, counts, weights=weights, head=main)
    size, view = model.input_shape[1], view_of(recipe, weights=weights)
    return Served(model, names, counts, head, adjustment, size, view.eval_resize, recipe.data.max_pixels)


def view_of(recipe: Recipe, *, weights: str) -> View:
    """How the network `weights` of a run sees an image."""
    return recipe.teacher.view if weights == "teacher" else recipe.student.view


def prior_adjustment(
    recipe: Recipe,
    prior: str,
    class_names: tuple[str, ...],
    class_counts: np.ndarray | None,
    *,
    weights: str,
    head: str,
) -> np.ndarray:
    """What a class prior adds to the logits of `head`, float32 [C]: see `priors`."""
    if weights == "teacher":
        raise ValueError("--prior is for the student: what a teacher's logits assume depends on its objective.")
    if class_counts is None:
        raise ValueError(
            f"--prior needs the class counts of the training data, which {recipe.run.folder} does not hold."
        )
    target = priors.log_target(prior, class_names=class_names, class_counts=class_counts)
    teacher_counts = None if head == "cls" else teacher_counts_of(recipe, class_names, class_counts)
    student = recipe.student
    assumed = priors.log_assumed(
        class_counts=class_counts,
        teacher_counts=teacher_counts,
        sampling=student.batch.sampling,
        logit_adjustment=student.logit_adjustment,
        reweighted=0 <= student.reweight_epoch < student.schedule.epochs,
        plain=student.plain,
        beta=student.schedule.beta,
    )
    return priors.adjustment(target=target, assumed=assumed[head])


def teacher_counts_of(recipe: Recipe, class_names: tuple[str, ...], class_counts: np.ndarray) -> np.ndarray | None:
    """`priors.teacher_labels` of the run, kept in WORKDIR/teacher_labels.json; None without a teacher, with a note.

    The first time, the teacher looks at all training images once.
    """
    folder, max_pixels = recipe.run.folder, recipe.data.max_pixels
    path, cache = folder / finished.FILES["teacher"], folder / "teacher_labels.json"
    if not path.is_file():
        print(f"--prior: there is no {path}; DIST's labels are assumed to be as frequent as the classes are.")
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if cache.is_file() and (content := json.loads(cache.read_text()))["teacher"] == digest:
        return np.array(content["counts"])
    model, _ = load_model(path)
    splits = load_splits(**recipe.data.loading(), folder=folder)
    same_classes(class_names, splits.train.class_names, path=path, num_outputs=model.output_shape[-1])
    batches = pipeline.evaluation_batches(
        splits.train, size=model.input_shape[1], resize=recipe.teacher.view.eval_resize, max_pixels=max_pixels
    )
    ask = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False), reduce_retracing=True)
    counts = decode.naming_bad_images(
        lambda: priors.teacher_labels(ask, batches, class_counts=class_counts, sampling=recipe.student.batch.sampling),
        splits,
        max_pixels=max_pixels,
    )
    write_json(cache, {"teacher": digest, "counts": counts.tolist()})
    return counts


class Images(NamedTuple):
    """What an export is checked on.

    batches: (images uint8 [B, S, S, 3], labels, mask) in the evaluation view.
    class_counts: training images of each class, which decide the groups; None: random pixels, without labels.
    reading: runs a function that reads the batches, and tells of a damaged image by its name.
    """

    batches: tf.data.Dataset
    class_counts: np.ndarray | None
    reading: Callable[[Callable], object]


def images_to_check(recipe: Recipe, served: Served, *, weights: str, check_images: int, batch: int = 32) -> Images:
    """`check_images` test images of the run's data (-1: all), or random pixels where it is 0.

    Raises ValueError where the data has other classes than the model, or another order.
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
    if 0 < check_images < len(test):  # spread over the set: its beginning may be one class
        test = sources.take(test, np.linspace(0, len(test) - 1, check_images).round().astype(int))
    reading = partial(decode.naming_bad_images, splits=splits, max_pixels=served.max_pixels)
    view = {"size": served.image_size, "resize": served.eval_resize, "max_pixels": served.max_pixels}
    batches = pipeline.evaluation_batches(test, batch=batch, **view)
    return Images(batches, sources.class_counts(splits.train.labels, len(expected)), reading)


def path_of(recipe: Recipe, *, weights: str, out: str, suffix: str) -> Path:
    """`out`, or the model's own path with another suffix. Raises ValueError for `out` with a suffix of another kind."""
    path = Path(out) if out else (recipe.run.folder / finished.FILES[weights]).with_suffix(suffix)
    if path.suffix != suffix:
        raise ValueError(f"--out={out}: the name of the file has to end in {suffix}.")
    return path


def metadata(served: Served, *, weights: str, prior: str) -> dict[str, str]:
    """What whoever runs the file has to know: JSON texts by name."""
    facts = {
        "class_names": list(served.class_names),
        "class_counts": None if served.class_counts is None else served.class_counts.tolist(),
        "image_size": served.image_size,
        "eval_resize": served.eval_resize,
        "heads": served.heads,
        "prior": prior,
        "weights": weights,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
