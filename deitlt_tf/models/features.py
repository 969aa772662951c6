"""Features of a network, and a cosine classifier on them: logits = scale * cos(features - mean, w_c).

The features of a network are the input of its last layer, its classifier. A frozen backbone is used this way.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.models.resnet import CosineClassifier


@keras.saving.register_keras_serializable(package="deitlt_tf")
class Centre(keras.layers.Layer):
    """x - mean, float32: [B, D] -> [B, D]. `mean` is a weight [D] that is not trained. It begins at zero.

    The angles of a cosine classifier count from the mean of all features. Features behind a ReLU are all positive, so
    without it every image would have about the same direction.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs | {"dtype": "float32"})

    def build(self, input_shape: tuple) -> None:
        self.mean = self.add_weight(name="mean", shape=(input_shape[-1],), initializer="zeros", trainable=False)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x - self.mean


def backbone(model: keras.Model) -> keras.Model:
    """The same network without its classifier: images [B, S, S, 3] -> float32 features [B, D]; weights are shared.

    model: of `models.build`, with one head.
    Raises ValueError for a network that does not end in a classifier of features [B, D].
    """
    features = model.layers[-1].input
    if model.layers[-1].output is not model.output or isinstance(features, list) or len(features.shape) != 2:
        raise ValueError(f"{model.name} does not end in a classifier of features.")
    return keras.Model(model.input, features, name=model.name)


def with_cosine_head(backbone: keras.Model, *, num_classes: int, scale: float) -> keras.Model:
    """Images -> scale * cos(features - mean, w_c), float32 [B, C]: the layers `centre` and `fc` on top of a backbone.

    backbone: images -> features [B, D]; its weights are shared.
    """
    x = Centre(name="centre")(backbone.output)
    logits = CosineClassifier(num_classes, scale=scale, name="fc")(x)
    return keras.Model(backbone.input, logits, name=backbone.name)


def class_means(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The mean of the features of each class, float64 [C, D]; zero for a class without images.

    features: [N, D]. labels: [N], 0..C-1.
    """
    sums = np.zeros((num_classes, features.shape[1]))
    for start in range(0, len(labels), 4096):  # in parts, because float64 would double the memory
        np.add.at(sums, labels[start : start + 4096], features[start : start + 4096])
    counts = np.bincount(labels, minlength=num_classes)
    return sums / np.maximum(counts, 1)[:, None]
