"""What a teacher is trained towards. May import `losses`, `mixing` and `devices`.

An objective computes the losses of a batch; `deitlt_tf.teacher.Teacher` takes the step. `labels.FromLabels` needs one
view of each image; `paco.Paco`, `mdcs.Mdcs` and `glmc.Glmc` need two. Each is a plain object with

    views       number of views of an image that the pipeline delivers, 1 or 2
    trainable   variables that are trained: the network's, then the objective's own
    state       other variables that a checkpoint has to hold: momentum encoder, queue, statistics
    prepare(views, labels, seed=, step=) -> inputs    once a step, outside of the tape: keys, mixing
    losses(inputs) -> [B]                             per example, inside a tape; SAM calls it twice a step
    ascent_losses(inputs) -> [B]                      the losses whose gradient SAM ascends; None: `losses` itself
    finish(inputs)                                    once a step, after the optimiser: the queue
"""

from collections.abc import Callable
from typing import Any, Protocol

import keras
import tensorflow as tf

from deitlt_tf.losses import ClassCounts
from deitlt_tf.objectives.glmc import Glmc
from deitlt_tf.objectives.labels import FromLabels
from deitlt_tf.objectives.mdcs import Mdcs
from deitlt_tf.objectives.paco import Paco

TWO_VIEWS: dict[str, Callable[..., "Objective"]] = {"paco": Paco, "mdcs": Mdcs, "glmc": Glmc}


class Objective(Protocol):
    """What a Teacher is trained towards; see the top of this file."""

    views: int
    trainable: list[keras.Variable]
    state: list[keras.Variable]

    @property
    def ascent_losses(self) -> Callable[[dict], tf.Tensor] | None: ...
    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict: ...
    def losses(self, inputs: dict) -> tf.Tensor: ...
    def finish(self, inputs: dict) -> None: ...


def build(loss: str, network: keras.Model, class_counts: ClassCounts, **settings: Any) -> Objective:
    """The objective called `loss` for this network: ce, ldam, balanced_softmax, paco, mdcs or glmc.

    class_counts: training images of each class, [C]. settings: keywords of the objective's class.
    Raises ValueError for an unknown name or a network that does not fit.
    """
    if loss in TWO_VIEWS:
        return TWO_VIEWS[loss](network, class_counts, **settings)
    return FromLabels(network, class_counts, loss=loss, **settings)
