"""Every kind of network takes a head: the model that is saved answers features @ kernel + bias."""

import numpy as np
import pytest
from helpers.federation import recipe_in

from deitlt_tf.federated import heads, networks
from deitlt_tf.models.interface import heads as answers

VIT = ("--federated_network=vit", "--image_size=8", "--patch_size=4", "--embed_dim=8", "--depth=1", "--num_heads=2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "width"),
    [
        (("--teacher_model=resnet8", "--teacher_image_size=8"), 64),
        ((*VIT, "--model=deit_nano"), 16),
        ((*VIT, "--model=deit_nano", "--method=vit"), 8),
    ],
)
def test_the_model_with_a_head_answers_as_the_head_on_the_features(tmp_path, flags, width):
    network = networks.build(recipe_in(tmp_path, *flags), num_classes=3)
    assert network.features.output_shape == (None, width)
    weights = {f"{i}": np.array(v) + 0.01 for i, v in enumerate(network.features.weights)}
    head = heads.masked(heads.new_head(width, 3, seed=4), [1, 0, 2])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    model = network.with_head(weights, head)
    ours = [*answers(model(pixels)).values()][-1].numpy()  # the mean of CLS and DIST, where there are two
    expected = heads.logits(network.features(pixels).numpy(), head)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_view_is_that_of_the_network(tmp_path):
    flags = ("--teacher_image_size=32", "--image_size=64")
    assert networks.view_of(recipe_in(tmp_path, *flags)).image_size == 32
    assert networks.view_of(recipe_in(tmp_path, *flags, "--federated_network=vit")).image_size == 64
