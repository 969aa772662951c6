"""The server's mean is the official one, and a reply that cannot be averaged is refused."""

import numpy as np
import pytest
from helpers.golden import Golden

from deitlt_tf.federated import aggregation


def test_the_mean_is_the_official_one():
    official = Golden("fedloge_aggregate")
    clients = [official.under(f"client{k}/") for k in range(official.config["clients"])]
    ours = aggregation.mean(clients, official["sizes"].tolist())
    expected = official.under("mean/")
    assert ours.keys() == expected.keys() and "net/bn1.running_var" in ours
    for name, array in expected.items():
        np.testing.assert_allclose(ours[name], array, rtol=1e-5, atol=1e-7, err_msg=name)
        assert ours[name].dtype == np.float32 or name.endswith("tracked")


def test_one_client_alone_is_the_mean():
    weights = {"a": np.float32([1.5, -2]), "b": np.float32(3)}
    ours = aggregation.mean([weights], [7])
    assert all(np.array_equal(ours[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("arrays", "size", "loss", "message"),
    [
        ({"w": np.float32([1, 2])}, 3, np.nan, "client north sends numbers in its loss that are not finite"),
        ({"w": np.float32([1, np.nan])}, 3, 0.5, "client north sends numbers in w that are not finite"),
        ({"w": np.float32([1, np.inf])}, 3, 0.5, "client north sends numbers in w that are not finite"),
        ({"w": np.float32([1])}, 3, 0.5, "client north sends weights of another network"),
        ({"v": np.float32([1, 2])}, 3, 0.5, "client north sends weights of another network"),
        ({"w": np.float32([1, 2])}, 0, 0.5, "client north reports 0 training images"),
    ],
)
def test_a_reply_that_cannot_be_averaged_is_one_sentence(arrays, size, loss, message):
    with pytest.raises(ValueError, match=message):
        aggregation.check_reply("north", arrays, {"w": np.float32([0, 0])}, size=size, loss=loss)


def test_a_good_reply_passes():
    aggregation.check_reply("north", {"w": np.float32([1, 2])}, {"w": np.float32([0, 0])}, size=1, loss=0.5)
