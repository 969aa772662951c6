"""The network that clients share: pixels -> features, and the model that a head makes of them."""

from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np

from deitlt_tf.federated.heads import Head
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.recipes.views import View
from deitlt_tf.training.networks import student_network, teacher_network


class Network(NamedTuple):
    """model: keras.Model that is saved, pixels -> logits. features: its layers below the head, pixels -> [B, D].

    A CNN's features are its pooled maps. Those of a DeiT student are its CLS and DIST token, one after the other, so
    one head on them is the sum of a head for each token. DIST has no teacher here: it is a second token that learns
    from the labels. A flat teacher would have to be trained by the clients first.
    """

    model: keras.Model
    features: keras.Model

    def with_head(self, weights: Mapping[str, np.ndarray], head: Head) -> keras.Model:
        """`model` with these weights of `features`, in their order, and this head, set in place.

        The mean of CLS and DIST, which our tools use, then is features @ kernel + bias.
        """
        for variable, value in zip(self.features.weights, weights.values(), strict=True):
            variable.assign(value)
        names = [name for name in ("fc", "head", "head_dist") if name in {layer.name for layer in self.model.layers}]
        parts = np.split(head.kernel, len(names))
        for name, part in zip(names, parts, strict=True):
            layer = self.model.get_layer(name)
            layer.kernel.assign(len(names) * part)
            layer.bias.assign(head.bias)
        return self.model


def build(recipe: Recipe, *, num_classes: int) -> Network:
    """A new network of a recipe. Its weights depend on the seed, or are those of --init or --teacher_init."""
    if recipe.federated.network == "cnn":
        linear = recipe.changed(teacher_loss="ce", teacher_classifier="linear")
        model = teacher_network(linear, num_classes=num_classes)
        return Network(model, keras.Model(model.input, model.get_layer("fc").input))
    model = student_network(recipe, num_classes=num_classes)
    tokens = model.get_layer("norm").output  # (B, CLS and DIST or CLS alone, D)
    return Network(model, keras.Model(model.input, keras.layers.Flatten(dtype="float32")(tokens)))


def view_of(recipe: Recipe) -> View:
    """The view of an image that the network sees."""
    return recipe.teacher.view if recipe.federated.network == "cnn" else recipe.student.view
