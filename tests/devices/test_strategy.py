"""Where a step runs: strategies by name, shares of a data set, seeds and precision, a worker that is lost."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.strategies import strategy_of

from deitlt_tf.devices import strategy as devices


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="strategy=both is unknown: choose none, mirrored or multi_worker"):
        devices.make_strategy("both")


def test_none_is_this_process_alone():
    with devices.running("none") as strategy:
        assert strategy is tf.distribute.get_strategy() and strategy.num_replicas_in_sync == 1
        assert devices.is_chief() and devices.workers() == 1
        assert devices.from_chief(7) == 7
        devices.wait_for_all()


@pytest.mark.parametrize("replicas", [1, 2])
def test_one_process_makes_all_batches_for_its_replicas(replicas):
    shares = []

    def make(**share):
        shares.append(share)
        return tf.data.Dataset.range(4).batch(1)

    strategy = strategy_of(replicas)
    with strategy.scope():
        first = next(iter(devices.distributed(make)))
    assert shares == [{"worker": 0, "workers": 1, "replicas": replicas}]
    parts = [int(part[0]) for part in strategy.experimental_local_results(first)]
    assert parts == list(range(replicas))


def test_a_worker_that_lost_another_one_says_so(monkeypatch):
    """The strategy itself is not made: several workers take several processes, see test_multi_worker."""
    task = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(task))
    monkeypatch.setattr(devices, "make_strategy", lambda name, **options: strategy_of(1))
    expected = "worker 1 has lost another worker .*it is gone.*Start all workers again"
    with pytest.raises(ConnectionError, match=expected), devices.running("multi_worker"):
        raise tf.errors.UnavailableError(None, None, "it is gone")
    with pytest.raises(tf.errors.UnavailableError), devices.running("none"):
        raise tf.errors.UnavailableError(None, None, "it is gone")


def test_prepare_sets_seeds_and_precision():
    before = keras.config.dtype_policy()
    try:
        draws = []
        for seed in (3, 3, 4):
            devices.prepare(seed=seed, precision="mixed_bfloat16", deterministic=False)
            draws.append(keras.layers.Dense(2))
            draws[-1].build((None, 2))
        kernels = [layer.kernel.numpy() for layer in draws]
        assert draws[0].compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
