"""What a teacher is trained towards. May import `losses`, `mixing` and `devices`.

An objective says what is asked of a batch; `deitlt_tf.teacher.Teacher` says how a step is taken. `labels.FromLabels`
takes one view of each image; `paco.Paco`, `mdcs.Mdcs` and `glmc.Glmc` take two. Each is a plain object with

    views       how many images of an example the pipeline has to deliver, 1 or 2
    trainable   what is trained: the network's weights, then its own
    state       what else a checkpoint has to hold: momentum branch, queue, statistics
    prepare(views, labels, seed=, step=) -> dict    once a step, nothing to differentiate: keys, mixing
    losses(inputs) -> [B]                           per example, inside a tape; SAM calls it twice
    ascent_losses                                   the same for what SAM climbs, or None: the losses themselves
    finish(inputs)                                  once a step, after the optimiser: the queue
"""

from typing import Protocol

import keras
import tensorflow as tf

from deitlt_tf.objectives.glmc import Glmc
from deitlt_tf.objectives.labels import FromLabels
from deitlt_tf.objectives.mdcs import Mdcs
from deitlt_tf.objectives.paco import Paco

TWO_VIEWS = {"paco": Paco, "mdcs": Mdcs, "glmc": Glmc}


class Objective(Protocol):
    """What a Teacher is trained towards; see the top of this file."""

    views: int
    trainable: list
    state: list

    def prepare(self, views: tuple, labels: tf.Tensor, *, seed: tf.Tensor, step: tf.Tensor) -> dict: ...
    def losses(self, inputs: dict) -> tf.Tensor: ...
    def finish(self, inputs: dict) -> None: ...


def build(loss: str, network: keras.Model, class_counts, **settings) -> Objective:
    """The objective called `loss` for this network: ce, ldam, balanced_softmax, paco, mdcs or glmc.

    settings: keywords of the objective's class. Raises ValueError for an unknown name or a network that does not fit.
    """
    if loss in TWO_VIEWS:
        return TWO_VIEWS[loss](network, class_counts, **settings)
    return FromLabels(network, class_counts, loss=loss, **settings)
