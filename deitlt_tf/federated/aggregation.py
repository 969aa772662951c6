"""The server's part of a round: the mean of the clients' arrays, weighted by their training images."""

from collections.abc import Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]


def mean(arrays: Sequence[Arrays], sizes: Sequence[int]) -> dict[str, np.ndarray]:
    """sum_k sizes[k] w_k / sum_k sizes[k] for every array, running statistics too, summed in the order of the clients.

    arrays: {name: array} of each client, with equal names. sizes: training images of each client.
    A sum of floats depends on its order, so callers sort the clients by name.
    Source: McMahan et al., AISTATS 2017 (FedAvg), algorithm 1; official util/fedavg.py.
    """
    total = sum(sizes)
    return {
        name: np.asarray(sum(client[name] * (size / total) for client, size in zip(arrays, sizes, strict=True)))
        for name in arrays[0]
    }


def check_reply(name: str, arrays: Arrays, expected: Arrays, *, size: int, loss: float) -> None:
    """Raises ValueError unless a client's reply can be averaged: names, shapes, finite numbers, one image or more.

    name: of the client, for the message. expected: {name: array} that were sent to it. size: its training images.
    loss: its mean loss.
    """
    if size < 1:
        raise ValueError(f"client {name} reports {size} training images: leave it out of this run.")
    if {key: array.shape for key, array in arrays.items()} != {key: array.shape for key, array in expected.items()}:
        raise ValueError(f"client {name} sends weights of another network: give it the recipe of this run.")
    numbers = {**arrays, "its loss": np.array(loss)}
    bad = next((key for key, array in numbers.items() if not np.isfinite(array).all()), None)
    if bad is not None:
        raise ValueError(
            f"client {name} sends numbers in {bad} that are not finite, so its training has diverged; nothing was "
            "averaged. A lower `federated_lr` may help."
        )
