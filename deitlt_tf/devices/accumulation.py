"""A batch in equal parts, one after the other, to save memory."""

from collections.abc import Callable

import tensorflow as tf

from deitlt_tf import graphs


@graphs.one_node
def added(total, part):
    """Their sum. A call of its own in the graph: TensorFlow would fuse a loop's total with sums inside the loop, and,
    where it thinks memory short, keep the result in a temporary variable that outlives the step: the next one fails.
    Source: tensorflow/tensorflow, issue 23780.
    """
    return tf.nest.map_structure(tf.add, total, part)


def in_parts(parts: int, function: Callable, data, *, add_up: bool = False):
    """function(k, k-th of `parts` equal slices of data), one after the other; results joined again, or added up.

    A loop in the graph, not an unrolled one, so that only one part's activations are in memory at a time.
    """
    if parts == 1:
        return function(0, data)

    def split(x):
        if x.shape[0] is None or x.shape[0] % parts:
            raise ValueError(f"a batch of {x.shape[0]} images does not split into {parts} equal parts of accumulation.")
        return tf.reshape(x, [parts, x.shape[0] // parts, *x.shape[1:]])

    slices = tf.nest.map_structure(split, data)

    def one(k):
        return function(k, tf.nest.map_structure(lambda x: x[k], slices))

    if add_up:
        rest = tf.range(1, parts)
        return tf.foldl(lambda total, k: added(total, one(k)), rest, initializer=one(0), parallel_iterations=1)
    first = one(0)
    signature = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), first)
    joined = tf.map_fn(one, tf.range(1, parts), fn_output_signature=signature, parallel_iterations=1)
    return tf.nest.map_structure(
        lambda x, xs: tf.concat([x, tf.reshape(xs, [-1, *x.shape[1:]])], axis=0), first, joined
    )
