"""What the tests of SavedModels compare with and send: the student's own answers, good and bad image files."""

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from deitlt_tf.evaluation import run as runs
from deitlt_tf.runs.models import load_model
from helpers import tiny_run

ANSWERS = {"logits_cls", "logits_dist", "logits_mean", "probabilities", "classes"}
# Without the graph's own check, pixels of three dimensions end the server's process, and those of 16 x 16 count as four
# images of 8 x 8.
SHAPES = [
    ("serving_default", {"images": np.zeros((1, 16, 16, 3), np.uint8)}),
    ("serving_default", {"images": np.zeros((8, 8, 3), np.uint8)}),
    ("features", {"images": np.zeros((8, 8, 3), np.uint8)}),
    ("features", {"images": np.zeros((1, 8, 8, 4), np.uint8)}),
    ("bytes", {"image_bytes": np.array(b"hello", object)}),
    ("bytes", {"image_bytes": np.array([[b"hello"]], object)}),
]


class Evaluated(NamedTuple):
    """The test set as `evaluate` sees it: files, views (uint8), and student.keras with its answers to them."""

    files: np.ndarray
    images: np.ndarray
    model: keras.Model
    logits: dict[str, tf.Tensor]


def evaluated(folder: Path, *arguments: str) -> Evaluated:
    run = tiny_run.run_of(folder, *arguments)
    model, _ = load_model(folder / "student.keras")
    source = run.splits.test
    images = next(iter(runs.test_batches(run, model, batch=len(source))))[0].numpy()
    files = np.array([Path(path).read_bytes() for path in source.images], object)
    return Evaluated(files, images, model, model(images, training=False))


def encoded(image: Image.Image, kind: str, **settings) -> bytes:
    """An image as a file of this kind."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


@functools.cache
def bad_files() -> dict[str, tuple[bytes, str]]:
    """What a client may send instead of an image, and what the answer has to say."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    png, jpeg, webp = (encoded(noise, kind) for kind in ("png", "jpeg", "webp"))
    animation = encoded(noise, "webp", save_all=True, append_images=[noise.rotate(90)])
    return {
        "text": (b"hello", "image 1: not a JPEG, PNG, BMP or"),
        "nothing": (b"", "image 1: not a JPEG, PNG, BMP or"),
        "gif": (encoded(noise, "gif"), "image 1: not a JPEG, PNG, BMP or"),
        "animation": (animation, "image 1: not a JPEG, PNG, BMP or"),
        "too large": (encoded(Image.new("RGB", (101, 100)), "png"), "image 1: 101 x 100 pixels are more than the"),
        "bomb": (encoded(Image.new("1", (10_000, 10_000)), "png"), "image 1: 10000 x 10000 pixels are more than"),
        "header only": (png[:20], "Invalid PNG"),
        "half a PNG": (png[: len(png) // 2], "Invalid PNG"),
        "half a JPEG": (jpeg[: len(jpeg) // 2], "Invalid JPEG"),
        "half a WebP": (webp[: len(webp) // 2], "Failed to decode WebP"),
    }


def check_answers(call: Callable[..., dict], ours: Evaluated) -> None:
    """call(signature, **inputs) -> {output: array} is what `evaluated` is, with the two likeliest labels."""
    mean = (ours.logits["cls"] + ours.logits["dist"]) / 2
    pixels, files = call("serving_default", images=ours.images), call("bytes", image_bytes=ours.files)
    assert set(pixels) == ANSWERS and set(files) == ANSWERS | {"top_labels", "top_probabilities"}
    for outputs in (pixels, files):
        np.testing.assert_allclose(outputs["logits_cls"], ours.logits["cls"], atol=1e-5)
        np.testing.assert_allclose(outputs["logits_dist"], ours.logits["dist"], atol=1e-5)
        np.testing.assert_allclose(outputs["logits_mean"], mean, atol=1e-5)
        np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(mean), atol=1e-5)
        np.testing.assert_array_equal(outputs["classes"], np.argmax(mean, -1))
    assert len(set(files["classes"].tolist())) > 1  # else the labels below would prove little
    order = np.argsort(-mean.numpy(), -1)[:, :2]
    names = np.array(tiny_run.CLASS_NAMES)[order]
    assert [[label.decode() for label in row] for row in files["top_labels"].tolist()] == names.tolist()
    likeliest = np.take_along_axis(tf.nn.softmax(mean).numpy(), order, -1)
    np.testing.assert_allclose(files["top_probabilities"], likeliest, atol=1e-5)
    tokens = keras.Model(ours.model.input, ours.model.get_layer("norm").output)(ours.images).numpy()
    features = call("features", images=ours.images)
    assert set(features) == {"features_cls", "features_dist"}
    np.testing.assert_allclose(features["features_cls"], tokens[:, 0], atol=1e-5)
    np.testing.assert_allclose(features["features_dist"], tokens[:, 1], atol=1e-5)
