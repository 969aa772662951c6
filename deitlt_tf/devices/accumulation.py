"""A batch in equal parts, one after the other, to save memory."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from deitlt_tf import graphs


@graphs.one_node
def add(total: Any, part: Any) -> Any:
    """total + part, for two nests of tensors of the same structure; one node in the graph.

    Inlined, TensorFlow would fuse the total of a loop with sums inside the loop. Where memory is short, it would keep
    the result in a temporary variable that outlives the step, and the next step would fail.
    Source: tensorflow/tensorflow, issue 23780.
    """
    return tf.nest.map_structure(tf.add, total, part)


def in_parts(
    parts: int, function: Callable[[Any, Any], Any], data: Any, *, add_up: bool = False, unrolled: bool = False
) -> Any:
    """The results of function(k, slice k of data) for `parts` equal slices, computed one after the other.

    function: of the number k and a slice, a nest of tensors [B / parts, ...]; returns a nest of tensors.
    data: nest of tensors [B, ...].
    add_up: the results are summed; otherwise they are joined along their first axis. Defaults to False.
    unrolled: the graph holds the parts one by one and not in a loop, so that replicas may communicate inside a part;
      they must not inside a loop. Defaults to False.
    Either way the activations of only one part are in memory at a time.
    Where B is known only when the graph runs, as without `drop_remainder`, the sizes of the parts differ by at most 1,
    and a batch of fewer than `parts` images has as many parts as images.
    Raises ValueError for a known B that does not split into `parts` equal parts, and for an unknown B with `unrolled`.
    """
    if parts == 1:
        return function(0, data)
    if any(x.shape[0] is None for x in tf.nest.flatten(data)):
        if unrolled:
            raise ValueError(
                f"accumulation={parts}: BatchNorm over several devices needs batches of a known size: set "
                "drop_remainder=True where they are made."
            )
        return _in_uneven_parts(parts, function, data, add_up=add_up)

    def split(x: tf.Tensor) -> tf.Tensor:
        if x.shape[0] % parts:
            raise ValueError(
                f"accumulation={parts}: a batch of {x.shape[0]} images does not split into {parts} equal parts. Choose "
                "a batch size that does, and drop_remainder=True where the last batch is smaller."
            )
        return tf.reshape(x, [parts, x.shape[0] // parts, *x.shape[1:]])

    slices = tf.nest.map_structure(split, data)

    def result(k: Any) -> Any:
        return function(k, tf.nest.map_structure(lambda x: x[k], slices))

    if unrolled:
        total = result(0)
        for k in range(1, parts):
            with tf.control_dependencies(tf.nest.flatten(total)):  # a part begins when the one before it is done
                part = result(k)
            total = add(total, part) if add_up else _joined(total, part)
        return total
    if add_up:
        rest = tf.range(1, parts)
        return tf.foldl(lambda total, k: add(total, result(k)), rest, initializer=result(0), parallel_iterations=1)
    first = result(0)
    signature = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), first)
    others = tf.map_fn(result, tf.range(1, parts), fn_output_signature=signature, parallel_iterations=1)
    return tf.nest.map_structure(
        lambda x, xs: tf.concat([x, tf.reshape(xs, [-1, *x.shape[1:]])], axis=0), first, others
    )


def _joined(total: Any, part: Any) -> Any:
    return tf.nest.map_structure(lambda x, y: tf.concat([x, y], axis=0), total, part)


def _in_uneven_parts(parts: int, function: Callable[[Any, Any], Any], data: Any, *, add_up: bool) -> Any:
    """`in_parts` for a batch whose size is known only when the graph runs."""
    size = tf.shape(tf.nest.flatten(data)[0])[0]
    count = tf.maximum(tf.minimum(parts, size), 1)  # a replica may have no image of a last batch

    def result(k: Any) -> Any:
        start, end = k * size // count, (k + 1) * size // count
        return function(k, tf.nest.map_structure(lambda x: x[start:end], data))

    join = add if add_up else _joined
    first = result(0)
    shapes = tf.nest.map_structure(lambda x: x.shape if add_up else tf.TensorShape([None, *x.shape[1:]]), first)
    _, total = tf.while_loop(
        lambda k, total: k < count,
        lambda k, total: (k + 1, join(total, result(k))),
        (tf.constant(1), first),
        shape_invariants=(tf.TensorShape([]), shapes),
        parallel_iterations=1,
    )
    return total
