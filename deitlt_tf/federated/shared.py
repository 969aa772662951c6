"""What the server holds and sends: weights of the features, the averaged head, the fixed head; as named arrays."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deitlt_tf.federated import etf
from deitlt_tf.federated.heads import Head, new_head
from deitlt_tf.federated.networks import Network
from deitlt_tf.federated.updates import weights_by_place
from deitlt_tf.recipes.recipe import Recipe

FEATURES = "features/"


@dataclass(frozen=True, eq=False)
class Shared:
    """weights: {name: array} of the features, in their order. aux: the averaged head. fixed: SSE-C, or None."""

    weights: dict[str, np.ndarray]
    aux: Head
    fixed: Head | None

    def averaged(self) -> dict[str, np.ndarray]:
        """What clients train and the server averages: {name: array}."""
        return self.weights | head_arrays("aux", self.aux)

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it: {name: array}."""
        return self.averaged() | (head_arrays("fixed", self.fixed) if self.fixed else {})

    def replaced(self, averaged: Mapping[str, np.ndarray]) -> "Shared":
        """The same with another `averaged`."""
        return of_arrays(self.arrays() | dict(averaged))


def head_arrays(name: str, head: Head) -> dict[str, np.ndarray]:
    """{name/kernel, name/bias}."""
    return {f"{name}/kernel": head.kernel, f"{name}/bias": head.bias}


def head_of(name: str, arrays: Mapping[str, np.ndarray]) -> Head:
    """The head that `head_arrays` has named."""
    return Head(arrays[f"{name}/kernel"], arrays[f"{name}/bias"])


def of_arrays(arrays: Mapping[str, np.ndarray]) -> Shared:
    """The reverse of `Shared.arrays`."""
    weights = {name: array for name, array in sorted(arrays.items()) if name.startswith(FEATURES)}
    fixed = head_of("fixed", arrays) if "fixed/kernel" in arrays else None
    return Shared(weights, head_of("aux", arrays), fixed)


def shapes(recipe: Recipe, network: Network, *, num_classes: int) -> dict[str, tuple[int, ...]]:
    """{name: shape} of `Shared.arrays` for a recipe."""
    width = network.features.output_shape[-1]
    heads = ["aux", "fixed"] if recipe.federated.has_fixed_head else ["aux"]
    of_heads: dict[str, tuple[int, ...]] = {f"{name}/kernel": (width, num_classes) for name in heads}
    of_heads |= {f"{name}/bias": (num_classes,) for name in heads}
    return {name: tuple(v.shape) for name, v in weights_by_place(network.features).items()} | of_heads


def start(recipe: Recipe, network: Network, *, num_classes: int) -> Shared:
    """What the first round begins with; it depends on the recipe alone."""
    width, seed, parts = network.features.output_shape[-1], recipe.run.seed, recipe.federated.heads
    fixed = None
    if recipe.federated.has_fixed_head:
        kernel = etf.sse_c(width, num_classes, seed=seed, sparsity=parts.sparsity, norm=parts.norm)
        fixed = Head(kernel, new_head(width, num_classes, seed=seed + 1).bias)  # its bias is torch's start, and fixed
    weights = {name: np.array(v) for name, v in weights_by_place(network.features).items()}
    return Shared(weights, new_head(width, num_classes, seed=seed), fixed)
