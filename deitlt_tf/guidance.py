"""Locality guidance: for a while the student's patches learn to look like the feature maps of its CNN teacher.

A convolution knows that neighbouring pixels belong together, and a Vision Transformer has to learn it from its images.
Guidance teaches it faster than labels do. The loss is temporary: its weight falls to 0, and the projections that
compare tokens with maps are thrown away. CLS, DIST and the last block, whose patches nobody reads, stay out of it.

Source: Li et al., ECCV 2022 (arXiv 2207.10026), lkhl/tiny-transformers.
"""

import itertools
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.models import vit

PAIRS = 3  # the source compares three blocks with three stages
SMALLEST = 1e-6  # added to the variance of a map, which is 0 where the teacher sees one colour


class Guide:
    """The distance of the student's patches from the teacher's maps, and the projections that make them comparable.

    sum over pairs (block, stage) of mean((project(patches) - map)^2) / variance(map), for each image. The coarser of
    the two grids is resized to the other one.

    student: a Vision Transformer of `models.build`, of two blocks or more.
    teacher: keras.Model whose layers have feature maps [B, h, w, C]; the last map of each side is a stage.
    seed: int. Seed of the projections' initial weights. Defaults to 0.

    Up to three pairs: blocks evenly from the first to the last but one, with as many of the teacher's last stages.
    Raises ValueError for a student of one block, and for a teacher without maps.
    """

    def __init__(self, student: keras.Model, teacher: keras.Model, *, seed: int = 0):
        blocks = [layer for layer in student.layers if isinstance(layer, vit.Block)]
        if len(blocks) < 2:
            raise ValueError(
                "guidance needs a student of two blocks or more: the patches of the last one are not read."
            )
        maps = stages(teacher)
        if not maps:
            raise ValueError(
                f"guidance needs feature maps, and no layer of {teacher.name} has one, [B, h, w, C] with h = w above "
                "1: use a network of deitlt_tf.models, or a keras.Model with a fixed input size whose layers are not "
                "inside another model."
            )
        count = min(PAIRS, len(maps), len(blocks) - 1)
        self.blocks = [int(b) for b in np.linspace(0, len(blocks) - 2, count).round()]
        self.maps = maps[-count:]
        self.leading = student.get_layer("tokens").leading
        self.grid = student.input_shape[1] // vit.patch_size(student)
        self.projections = [
            keras.layers.Dense(
                x.shape[-1],
                kernel_initializer=keras.initializers.GlorotUniform(seed=seed + k),
                dtype="float32",
                name=f"guide.{k}",
            )
            for k, x in enumerate(self.maps)
        ]
        for projection in self.projections:
            projection.build((None, blocks[0].dim))

    @property
    def variables(self) -> list[keras.Variable]:
        """Kernels and biases of the projections."""
        return [v for projection in self.projections for v in projection.variables]

    def losses(self, tokens: Sequence[tf.Tensor], maps: Sequence[tf.Tensor]) -> tf.Tensor:
        """The distance for each image, float32 [B].

        tokens: [B, T, D], all tokens after each of `blocks`. maps: [B, h, w, C], the teacher's, in the order of `maps`.
        """
        # The gradient of tf.split is a copy. That of the slice x[:, leading:] took 3 % of a step at 32 pixels on a CPU.
        patches = (tf.split(x, [self.leading, -1], axis=1)[1] for x in tokens)
        pairs = zip(self.projections, patches, maps, strict=True)
        return tf.add_n([self.distance(projection(x), y) for projection, x, y in pairs])

    def distance(self, patches: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """mean((patches - target)^2) / variance(target) for each image, [B]. patches: [B, N, C]."""
        patches = tf.reshape(patches, (-1, self.grid, self.grid, patches.shape[-1]))
        side = max(self.grid, target.shape[1])
        patches, target = (_resized(tf.cast(x, tf.float32), side) for x in (patches, target))
        error = tf.reduce_mean(tf.square(patches - target), (1, 2, 3))
        return error / (tf.math.reduce_variance(target, (1, 2, 3)) + SMALLEST)


def _resized(maps: tf.Tensor, side: int) -> tf.Tensor:
    return maps if maps.shape[1] == side else tf.image.resize(maps, (side, side))


def stages(teacher: keras.Model) -> list[keras.KerasTensor]:
    """The last square feature map [B, h, h, C] of each side above 1, the largest first; [] where none can be seen.

    What comes before the first kernel, such as scaled pixels, is no feature. The layers of a model inside the teacher
    are not seen: their outputs belong to a graph of its own.
    """
    maps = {}
    layers = itertools.dropwhile(lambda layer: not any(len(w.shape) > 1 for w in layer.weights), teacher.layers)
    for layer in layers:
        if isinstance(layer, keras.Model):
            continue
        try:
            x = layer.output
        except (AttributeError, ValueError):  # a subclass of keras.Model, whose layers are not connected
            return []
        if (
            isinstance(x, keras.KerasTensor)
            and len(x.shape) == 4
            and x.shape[1] == x.shape[2]
            and (x.shape[1] or 0) > 1
        ):
            maps[x.shape[1]] = x
    return [maps[side] for side in sorted(maps, reverse=True)]


def with_maps(teacher: keras.Model, maps: Sequence[keras.KerasTensor]) -> Callable[[tf.Tensor], tuple]:
    """The teacher in inference mode as a function: images -> (its output, [maps]), in one pass."""
    # A Sequential has no `input`, and this one output is a teacher's only one.
    model = keras.Model(teacher.inputs[0], (teacher.outputs[0], list(maps)))
    return lambda images: model(images, training=False)
