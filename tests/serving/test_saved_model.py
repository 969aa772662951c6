"""The signatures of a SavedModel compute what evaluation does, and refuse what they should."""

import base64
import json
import re
import subprocess
import threading
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, tiny_run
from helpers.saved_models import SHAPES, bad_files, check_answers, encoded, evaluated
from PIL import Image

from deitlt_tf.data import decode
from deitlt_tf.data.taxonomy import from_dict, from_lineages
from deitlt_tf.recipes.flags import FLAGS
from deitlt_tf.serving import saved_model
from deitlt_tf.serving.served import load_served


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.finished(tmp_path_factory.mktemp("finished"))


def test_the_signatures_compute_what_evaluation_does_and_refuse_what_they_should(tiny):
    """The functions themselves, run eagerly; the slow tests below send the same through an export and a server."""
    ours = evaluated(tiny)
    served = load_served(tiny_run.recipe_of(tiny), weights="student")
    functions = saved_model.signatures(served, top_k=2, max_pixels=10_000)
    tf.config.run_functions_eagerly(True)
    try:

        def call(signature, **inputs):
            outputs = functions[signature](**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in outputs.items()}

        check_answers(call, ours)
        for signature, inputs in SHAPES:
            with pytest.raises(tf.errors.InvalidArgumentError, match="is not compatible with expected shape"):
                call(signature, **inputs)
        for file, message in bad_files().values():
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                call("bytes", image_bytes=np.array([ours.files[0], file], object))
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.slow
def test_answers_by_rank_have_names(tmp_path):
    folder = tiny_run.finished(tmp_path, taxonomy=tiny_run.TAXONOMY)
    ours, taxonomy = evaluated(folder), tiny_run.TAXONOMY
    seen = set()
    for threshold in ("0.45", "0.8", "0.999"):
        served = load_served(tiny_run.recipe_of(folder), weights="student", threshold=threshold)
        outputs = served(tf.constant(ours.images))
        names = {name: x.numpy().tolist() for name, x in saved_model.names_of_sure(outputs, served).items()}
        assert names.keys() == {"sure_label", "sure_rank_name"}
        for rank, node, label, rank_name in zip(
            outputs["sure_rank"], outputs["sure_node"], names["sure_label"], names["sure_rank_name"], strict=True
        ):
            expected = (taxonomy.nodes[rank][node], taxonomy.ranks[rank]) if rank < 2 else ("", "")
            assert (label.decode(), rank_name.decode()) == expected
            seen.add(int(rank))
    assert len(seen) > 1
    assert saved_model.names_of_sure({}, served._replace(threshold=None)) == {}


@pytest.mark.slow
def test_names_with_any_marks_survive_a_saved_model(tmp_path):
    classes = ('a; "b"', "c,\td", "\u1e7d'\\")
    taxonomy = from_lineages([(name, f"{name[0]};,\t'") for name in classes], ('class, "x"', "kind;\t"))
    served = SimpleNamespace(model=keras.Sequential(), class_names=classes, taxonomy=taxonomy, threshold=0.5)
    names = tf.function(
        lambda rank, node: saved_model.names_of_sure({"sure_rank": rank, "sure_node": node}, served),
        input_signature=[tf.TensorSpec([None], tf.int64, name) for name in ("rank", "node")],
    )
    saved_model.write({"serving_default": names}, tmp_path, served=served)
    rank, node = tf.constant([0, 0, 1, 2], tf.int64), tf.constant([0, 2, 1, -1], tf.int64)
    answers = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](rank=rank, node=node)
    assert [x.decode() for x in answers["sure_label"].numpy()] == [classes[0], classes[2], taxonomy.nodes[1][1], ""]
    assert [x.decode() for x in answers["sure_rank_name"].numpy()] == [taxonomy.ranks[r] for r in (0, 0, 1)] + [""]
    assert (tmp_path / "assets" / "class_names.txt").read_text(encoding="utf-8") == "".join(f"{x}\n" for x in classes)
    stored = json.loads((tmp_path / "assets" / "taxonomy.json").read_text())
    assert from_dict(stored, place="assets").to_dict() == taxonomy.to_dict()


def refusal(files, **limits) -> str:
    """What `views` says of a request; in a graph, as a server runs it."""
    view = tf.function(lambda x: saved_model.views(x, size=8, resize=0, **limits))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        view(tf.constant(files))
    return error.value.message


def png(width: int, height: int) -> bytes:
    return encoded(Image.new("RGB", (width, height)), "png")


def test_a_request_has_a_limit_of_images_and_one_of_pixels_in_all():
    view = tf.function(lambda x: saved_model.views(x, size=8, resize=0, max_pixels=10_000, max_images=4))
    assert view(tf.constant([png(50, 50)] * 4)).shape == (4, 8, 8, 3)  # exactly as much as is allowed
    assert view(tf.constant([], tf.string)).shape == (0, 8, 8, 3)
    limits = {"max_pixels": 10_000, "max_images": 4}
    assert "5 images are more than the limit of 4" in refusal([png(9, 9)] * 5, **limits)
    assert "the images have 10001 pixels, more than the limit of 10000" in refusal(
        [png(100, 99), png(101, 1)], **limits
    )
    assert "image 1: 101 x 100 pixels are more than the limit" in refusal([png(9, 9), png(101, 100)], **limits)
    assert saved_model.MOST_IMAGES == 64 == FLAGS["request_images"].default


def test_too_much_is_refused_before_any_pixel_is_decoded(monkeypatch):
    """The first image is damaged behind its header: whoever decodes it says so."""
    half = png(60, 60)[:50]
    for files in ([half] * 3, [half, png(100, 100)], [half, b"hello"]):
        assert "Invalid PNG" not in refusal(files, max_pixels=10_000, max_images=2)
    assert "Invalid PNG" in refusal([half], max_pixels=10_000, max_images=2)


def test_the_images_of_a_request_are_decoded_at_the_same_time(monkeypatch):
    """Two decodings wait for each other: one after the other they would wait for ever."""
    together = threading.Barrier(2, timeout=60)

    def meet(pixels):
        together.wait()
        return pixels

    real = decode.decode

    def slow(data, **keywords):
        pixels = tf.numpy_function(meet, [real(data, **keywords)], tf.uint8, stateful=False)
        return tf.ensure_shape(pixels, [None, None, 3])

    monkeypatch.setattr(decode, "decode", slow)
    view = tf.function(lambda x: saved_model.views(x, size=8, resize=0, max_pixels=10_000))
    assert view(tf.constant([png(20, 20)] * 6)).shape == (6, 8, 8, 3)


def test_the_rest_request_of_the_documentation_is_what_the_signature_takes(tiny, tmp_path):
    """`{"b64": ...}` is how TensorFlow Serving's REST front end is told of bytes; its `instances` are by input name."""
    page = (ROOT / "docs" / "how_to" / "serve.md").read_text()
    command = re.search(r"^ +(\(printf .*?)\| curl ", page, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "cat.jpg").write_bytes(bytes(range(256)))
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, check=True)
    request = json.loads(done.stdout)
    served = load_served(tiny_run.recipe_of(tiny), weights="student")
    functions = saved_model.signatures(served, top_k=2, max_pixels=10_000)
    (argument,) = functions[request["signature_name"]].input_signature
    assert argument.dtype == tf.string
    ((name, value),) = request["instances"][0].items()
    assert name == argument.name and base64.b64decode(value["b64"]) == bytes(range(256))


def test_an_export_that_answers_otherwise_is_refused(tmp_path):
    """Read back, the functions have to give the numbers that they gave before they were written."""

    def functions(shift: float) -> saved_model.Signatures:
        signature = [tf.TensorSpec([None], tf.float32, name="x")]
        return {"double": tf.function(lambda x: {"y": 2 * x + shift}, input_signature=signature)}

    module = tf.Module()
    tf.saved_model.save(module, str(tmp_path), signatures=functions(0.0))
    requests = [("double", {"x": tf.constant([1.0, 2.0])})]
    assert saved_model.check(functions(0.0), tmp_path, requests) == 0
    masked = [("double", {"x": tf.constant([1.0, -np.inf])})]  # as a personal model answers for a class it never had
    assert saved_model.check(functions(0.0), tmp_path, masked) == 0
    with pytest.raises(ValueError, match="nan off"):
        saved_model.check(functions(np.nan), tmp_path, requests)
    with pytest.raises(ValueError, match="double"):
        saved_model.check(functions(0.1), tmp_path, requests)
    other = {"double": tf.function(lambda x: {"z": x}, input_signature=functions(0.0)["double"].input_signature)}
    with pytest.raises(ValueError, match=r"double.*\['y'\].*\['z'\]"):
        saved_model.check(other, tmp_path, requests)


def test_an_example_of_every_signature_is_two_sizes_of_image():
    functions = dict.fromkeys(("serving_default", "bytes", "features"))
    requests = dict(saved_model.examples(functions, size=6, max_pixels=10**6))
    assert list(requests) == list(functions)
    assert requests["features"]["images"].shape == (1, 6, 6, 3)
    sizes = [tf.io.decode_image(data).shape[:2] for data in requests["bytes"]["image_bytes"]]
    assert sizes == [(6, 6), (12, 18)]
    (single,) = dict(saved_model.examples(functions, size=6, max_pixels=10**6, max_images=1))["bytes"]["image_bytes"]
    assert tf.io.decode_image(single).shape[:2] == (6, 6)
    files = dict(saved_model.examples(functions, size=6, max_pixels=150))["bytes"]["image_bytes"]
    assert sum(np.prod(tf.io.decode_image(data).shape[:2]) for data in files) <= 150
