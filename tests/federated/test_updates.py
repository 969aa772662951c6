"""What a client does in a round: the official numbers, and that the losses do not mix."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.golden import Golden

from deitlt_tf.federated.heads import Head, new_head
from deitlt_tf.federated.updates import ClientUpdate
from deitlt_tf.models.resnet import BatchNorm


@pytest.fixture(scope="module")
def official():
    return Golden("fedloge_client_update")


def small_network(size: int = 8) -> keras.Model:
    """The two-layer network of the official numbers: pixels -> [B, 16]."""
    images = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(images)
    x = keras.layers.ReLU()(BatchNorm()(x))
    x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.Conv2D(16, 3, strides=2, use_bias=False)(x)
    x = keras.layers.ReLU()(BatchNorm()(x))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


# In the order of Keras' weights.
NAMES = [
    *("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"),
    *("conv2.weight", "bn2.weight", "bn2.bias", "bn2.running_mean", "bn2.running_var"),
]


def keras_layout(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def head_of(golden, key: str) -> Head:
    return Head(golden[f"{key}/weight"].T, golden[f"{key}/bias"])


def update_of(network, **settings) -> ClientUpdate:
    defaults = {"fixed": True, "local": True, "learning_rate": 0.03, "momentum": 0.5}
    return ClientUpdate(network, 5, **defaults | settings)


@pytest.fixture(scope="module")
def update():
    return update_of(small_network())


@pytest.mark.parametrize("case", ["two_epochs", "one_batch"])  # the momentum of the first must not reach the second
def test_a_round_of_a_client_is_the_official_one(official, update, case):
    weights = {key: keras_layout(official[f"before/net/{n}"]) for key, n in zip(update.weights, NAMES, strict=True)}
    heads = {
        "fixed": Head(official["fixed_weight"].T, official["fixed_bias"]),
        "aux": head_of(official, "before/aux"),
        "local": head_of(official, "before/local"),
    }
    images, labels = official.images("images_nchw"), official["labels"].astype(np.int32)
    batches = [
        (images[order[i : i + 8]], labels[order[i : i + 8]])
        for order in official[f"order/{case}"]
        for i in range(0, len(order), 8)
    ]
    after, trained, loss = update.train(weights, heads, batches)
    assert loss == pytest.approx(float(official[f"mean_loss/{case}"]), rel=1e-4)
    for key, name in zip(update.weights, NAMES, strict=True):
        expected = keras_layout(official[f"after/{case}/net/{name}"])
        # torch's running variance is unbiased, Keras' biased.
        tolerance = 2e-3 if name.endswith("running_var") else 1e-5
        np.testing.assert_allclose(after[key], expected, rtol=1e-3, atol=tolerance, err_msg=name)
    for name in ("aux", "local"):
        for ours, expected in zip(trained[name], head_of(official, f"after/{case}/{name}"), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(trained["fixed"].kernel, heads["fixed"].kernel)


def setting(update, seed: int = 0):
    rng = np.random.default_rng(seed)
    heads = {name: new_head(16, 5, seed=i) for i, name in enumerate(update.heads)}
    batches = [(rng.uniform(0, 1, (6, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 6, np.int32))] * 2
    return update.read(), heads, batches


def differences(a: dict, b: dict) -> set[str]:
    return {name for name in a if not all(np.array_equal(x, y) for x, y in zip(a[name], b[name], strict=True))}


def test_no_loss_reaches_what_another_one_trains(update):
    weights, heads, batches = setting(update)
    before = update.train(weights, heads, batches)
    other = new_head(16, 5, seed=9)
    for name, moved in (("aux", {"aux"}), ("local", {"local"}), ("fixed", {"fixed", "aux", "local"})):
        after = update.train(weights, heads | {name: other}, batches)
        assert bool(differences(before[0], after[0])) == (name == "fixed")
        assert differences(before[1], after[1]) == moved


@pytest.mark.slow
def test_without_a_fixed_head_aux_trains_the_features_and_fedprox_holds_them_back():
    network = small_network()
    plain = update_of(network, fixed=False, local=False)
    weights, heads, batches = setting(plain)
    free, free_heads, _ = plain.train(weights, heads, batches * 5)
    moved, _, _ = plain.train(weights, heads | {"aux": new_head(16, 5, seed=9)}, batches * 5)
    assert differences(free, moved)
    _, held_heads, _ = update_of(network, fixed=False, local=False, proximal=10.0).train(weights, heads, batches * 5)
    start = heads["aux"].kernel
    assert np.abs(held_heads["aux"].kernel - start).max() < 0.5 * np.abs(free_heads["aux"].kernel - start).max()
    # The first step starts where the round starts, so there is nothing to hold back yet.
    one, one_free = (
        update_of(network, fixed=False, local=False, proximal=mu).train(weights, heads, batches[:1])
        for mu in (10.0, 0.0)
    )
    assert not differences(one[0], one_free[0])


def test_a_loss_that_is_not_finite_is_named(update):
    weights, heads, batches = setting(update)
    bad = heads | {"local": Head(heads["local"].kernel * np.float32(np.nan), heads["local"].bias)}
    with pytest.raises(FloatingPointError, match="the loss is nan in batch 1 of 2"):
        update.train(weights, bad, batches)
    assert tf.executing_eagerly()
