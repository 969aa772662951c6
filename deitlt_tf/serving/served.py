"""What all exports share: the finished network of a workdir, what it answers, the images to check an export on."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.data import decode, sources
from deitlt_tf.models import interface
from deitlt_tf.recipes.recipe import max_pixels_of, of_network
from deitlt_tf.runs import finished
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.models import load_model, same_classes
from deitlt_tf.serving import priors
from deitlt_tf.training.views import evaluation_batches


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


def load_served(flags: SimpleNamespace) -> Served:
    """The network of --workdir that --weights names, with --heads and --prior.

    Raises FileNotFoundError for a run without it, ValueError for heads it has not or a prior that does not fit.
    """
    path = Path(flags.workdir) / finished.FILES[flags.weights]
    model, names, counts = finished.load(Path(flags.workdir), weights=flags.weights)
    outputs = interface.heads(model.output)
    heads = flags.heads if len(outputs) > 1 or flags.heads != "all" else "cls"
    main = interface.main_head(heads)
    if main not in outputs:
        raise ValueError(f"--heads={flags.heads}: {path} has one head; choose --heads=all or cls.")
    adjustment = prior_adjustment(flags, names, counts, head=main) if flags.prior else None
    view = of_network(flags, teacher=flags.weights == "teacher")
    size = model.input_shape[1]
    return Served(model, names, counts, heads, adjustment, size, view.eval_resize, max_pixels_of(flags))


def prior_adjustment(
    flags: SimpleNamespace, class_names: tuple[str, ...], class_counts: np.ndarray | None, *, head: str
) -> np.ndarray:
    """What --prior adds to the logits of `head`, float32 [C]: see `priors`."""
    if flags.weights == "teacher":
        raise ValueError("--prior is for the student: what a teacher's logits assume depends on its objective.")
    if class_counts is None:
        raise ValueError(f"--prior needs the class counts of the training data, which {flags.workdir} does not hold.")
    target = priors.log_target(flags.prior, class_names=class_names, class_counts=class_counts)
    teacher_counts = None if head == "cls" else teacher_counts_of(flags, class_names, class_counts)
    assumed = priors.log_assumed(flags, class_counts=class_counts, teacher_counts=teacher_counts)
    return priors.adjustment(target=target, assumed=assumed[head])


def teacher_counts_of(
    flags: SimpleNamespace, class_names: tuple[str, ...], class_counts: np.ndarray
) -> np.ndarray | None:
    """`priors.teacher_labels` of the run, kept in WORKDIR/teacher_labels.json; None (and said so) without a teacher.

    The first time, the teacher looks at all training images once.
    """
    folder = Path(flags.workdir)
    path, kept = folder / finished.FILES["teacher"], folder / "teacher_labels.json"
    if not path.is_file():
        print(f"--prior: there is no {path}; DIST's labels are taken to come as often as the classes do.")
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if kept.is_file() and (found := json.loads(kept.read_text()))["teacher"] == digest:
        return np.array(found["counts"])
    model, _ = load_model(path)
    splits = load_splits(flags, folder=folder)
    same_classes(class_names, splits.train.class_names, path=path, num_outputs=model.output_shape[-1])
    batches = evaluation_batches(splits.train, flags, teacher=True)
    ask = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False), reduce_retracing=True)
    counts = decode.naming_bad_images(
        lambda: priors.teacher_labels(ask, batches, class_counts=class_counts, sampling=flags.sampling),
        splits,
        max_pixels=max_pixels_of(flags),
    )
    write_json(kept, {"teacher": digest, "counts": counts.tolist()})
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


def images_to_check(flags: SimpleNamespace, served: Served, *, batch: int = 32) -> Images:
    """--check_images test images of the run's data, or random pixels where it is 0.

    Raises ValueError where the data has other classes than the model, or another order.
    """
    if flags.check_images == 0:
        shape = (64, served.image_size, served.image_size, 3)
        pixels = np.random.default_rng(flags.seed).integers(0, 256, shape, dtype=np.uint8)
        random = tf.data.Dataset.from_tensor_slices((pixels, np.zeros(64, np.int32), np.ones(64, np.float32)))
        return Images(random.batch(batch), None, lambda read: read())
    splits = load_splits(flags, folder=Path(flags.workdir))
    expected, path = splits.train.class_names, Path(flags.workdir) / finished.FILES[flags.weights]
    same_classes(served.class_names, expected, path=path, num_outputs=len(served.class_names))
    test = splits.test
    if 0 < flags.check_images < len(test):  # spread over the set: its beginning may be one class
        test = sources.take(test, np.linspace(0, len(test) - 1, flags.check_images).round().astype(int))
    reading = partial(decode.naming_bad_images, found=splits, max_pixels=served.max_pixels)
    batches = evaluation_batches(test, flags, teacher=flags.weights == "teacher", batch=batch)
    return Images(batches, sources.class_counts(splits.train.labels, len(expected)), reading)


def path_of(flags: SimpleNamespace, *, suffix: str) -> Path:
    """--out, or the model's own path with another suffix. Raises ValueError for --out with a suffix of another kind."""
    out = Path(flags.out) if flags.out else (Path(flags.workdir) / finished.FILES[flags.weights]).with_suffix(suffix)
    if out.suffix != suffix:
        raise ValueError(f"--out={flags.out}: the name of the file has to end in {suffix}.")
    return out


def metadata(flags: SimpleNamespace, served: Served) -> dict[str, str]:
    """What whoever runs the file has to know: JSON texts by name."""
    facts = {
        "class_names": list(served.class_names),
        "class_counts": None if served.class_counts is None else served.class_counts.tolist(),
        "image_size": served.image_size,
        "eval_resize": served.eval_resize,
        "heads": served.heads,
        "prior": flags.prior,
        "weights": flags.weights,
    }
    return {name: json.dumps(value) for name, value in facts.items()}
