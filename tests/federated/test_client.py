"""A client: its seed, its folder, and that a round may be repeated."""

import functools

import numpy as np
import pytest
from helpers.federation import recipe_in, tiny_clients, tiny_network

from deitlt_tf.federated import client, etf, shared


@pytest.mark.slow
def test_a_round_may_be_repeated_and_starts_from_the_heads_of_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr(etf, "sse_c", functools.partial(etf.sse_c, steps=3))
    recipe, network = recipe_in(tmp_path), tiny_network()
    start = shared.start(recipe, network, num_classes=3)
    north, south = (
        client.Client(
            images,
            recipe=recipe,
            network=network,
            update=client.make_update(recipe, network, num_classes=3),
            folder=tmp_path / images.name,
        )
        for images in tiny_clients()
    )
    assert north.seed != south.seed and (tmp_path / "north/flags.cfg").is_file()
    sizes = []
    first = north.train(start, 1, last=0, progress=sizes.append)
    assert sum(sizes) == first.size == 9 and sizes == [4, 4, 1]
    _, head = north.state(start, 1)
    second = north.train(start, 2, last=1)
    again = north.train(start, 2, last=1)  # the server was restarted in between
    assert all(np.array_equal(second.arrays[name], again.arrays[name]) for name in second.arrays)
    assert second.loss == again.loss != first.loss
    np.testing.assert_array_equal(north.state(start, 1)[1].kernel, head.kernel)
    assert "local/kernel" not in first.arrays  # never leaves the client
    with pytest.raises(ValueError, match="client north took part in round 9, but"):
        north.state(start, 9)
    with pytest.raises(ValueError, match=r"north holds a run of another recipe: `federated_lr` is '0.03' there"):
        client.Client(
            tiny_clients()[0],
            recipe=recipe_in(tmp_path, "--federated_lr=0.1"),
            network=network,
            update=north.update,
            folder=tmp_path / "north",
        )
