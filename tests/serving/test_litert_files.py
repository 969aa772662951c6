"""A LiteRT file answers as its network does, for any batch, and carries class names and metadata."""

import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import onnx_networks as networks

from deitlt_tf import models
from deitlt_tf.serving import litert_files
from deitlt_tf.serving.served import Served


def served(model: keras.Model) -> Served:
    return Served(model, ("a", "b", "c"), None, "cls", None, model.input_shape[1], 0, 10**6)


def test_what_is_exported_is_the_served_network():
    network = served(models.build("resnet8", num_classes=3, image_size=8))
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    exported = litert_files.ServedModel(network)
    outputs = exported(images)
    assert set(outputs) == {"logits_cls", "probabilities"}
    for name, value in network(images).items():
        np.testing.assert_array_equal(outputs[name], value)
    assert len(exported.weights) == len(network.model.weights)  # its weights are tracked, so they are written


def pretrained() -> keras.Model:
    return networks.shaken(models.build("vit_nano", num_classes=3, **networks.SMALL_VIT, **networks.PRETRAINED))


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: models.build("resnet8", num_classes=3, image_size=8), pretrained])
@pytest.mark.parametrize(("kind", "tolerance"), [("float32", 1e-5), ("int8", 0.1)])
def test_a_file_is_written_and_run(tmp_path, kind, tolerance, make):
    network = served(make())
    path = tmp_path / "network.tflite"
    litert_files.write(network, path, kind=kind, input_type="uint8", metadata={"image_size": "8"})
    answer = litert_files.runner(path)
    for count in (1, 3):
        images = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), np.uint8)
        for name, value in network(images).items():
            largest = max(1, np.abs(value).max())
            np.testing.assert_allclose(answer(images)[name], value, atol=tolerance * largest, err_msg=name)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split() == ["a", "b", "c"]
        assert json.loads(archive.read("image_size.json")) == 8
