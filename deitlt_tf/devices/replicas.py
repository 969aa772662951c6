"""What replicas do together inside a step: sums, assignments, gathering, one optimiser step."""

import keras
import tensorflow as tf

from deitlt_tf.devices import loss_scale


def fold(seed: tf.Tensor, number) -> tf.Tensor:
    """Another seed, a function of `seed` and `number`."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int32))


def global_sum(values: tf.Tensor) -> tf.Tensor:
    return all_sum(tf.reduce_sum(values))


def replica() -> tuple[tf.Tensor, int]:
    """This replica's number and how many there are; call inside a step."""
    context = tf.distribute.get_replica_context()
    return tf.convert_to_tensor(context.replica_id_in_sync_group), context.num_replicas_in_sync


def all_sum(tensors):
    """Sum of a tensor (or a nest of them) over replicas; every replica gets the sum."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    # A worker's only replica refuses to sum what lies on no device yet, an argument of the step for instance.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.nest.map_structure(tf.identity, tensors))


def assign(variables: list, values: list[tf.Tensor]) -> None:
    """variable <- value for each pair, from inside a step; the values have to be equal on all replicas.

    Keras weights are mirrored without an aggregation rule, so TensorFlow refuses a plain `assign` there.
    """

    def update(strategy, *new):
        for variable, value in zip(variables, new, strict=True):
            strategy.extended.update(variable.value, lambda v, x: v.assign(x), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=tuple(values))


def gathered(x: tf.Tensor) -> tf.Tensor:
    """[B, ...] of all replicas, one after the other: [replicas * B, ...]; B has to be the same on all of them.

    A sum over replicas of x in its own place and zeros elsewhere: one collective, and one for its gradient, where
    TensorFlow's all_gather takes two for the gradient and goes through one device when there are several GPUs.
    """
    number, count = replica()
    if count == 1:
        return x
    place = tf.reshape(tf.one_hot(number, count, dtype=x.dtype), [count] + [1] * x.shape.rank)
    return tf.reshape(all_sum(place * x), [-1, *x.shape[1:]])


def own_part(x: tf.Tensor) -> tf.Tensor:
    """The reverse of `gathered`: this replica's [B, ...] of [replicas * B, ...]."""
    number, count = replica()
    return tf.reshape(x, [count, -1, *x.shape[1:]])[number]


def step_seed(seed: int, step: tf.Tensor, *, part: int | tf.Tensor = 0, parts: int = 1) -> tf.Tensor:
    """The seed int32 [2] from which everything random derives in one of the `parts` of this replica's batch.

    It is the part's number in the whole batch that counts: two replicas draw what one with two parts does.
    """
    both = tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
    return tf.random.experimental.stateless_fold_in(both, tf.cast(replica()[0], tf.int32) * parts + part)


def apply_summed(
    optimizer: keras.optimizers.Optimizer,
    gradients: list,
    variables: list,
    *,
    clip_norm: float,
    scaling: loss_scale.LossScale | None = None,
) -> None:
    """One optimiser step with the gradients summed over replicas, their global norm cut at `clip_norm` (0: not cut).

    scaling: what the losses were multiplied with; its step moves nothing where a gradient of any replica overflowed.
    Keras sums over replicas when it applies; dividing by their number here leaves exactly the sum that was clipped.
    """
    gradients = all_sum(gradients)
    finite = tf.constant(True)
    if scaling:
        gradients = [g / scaling.scale for g in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    if clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    gradients = [g / replica()[1] for g in gradients]

    if scaling is None:
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        return

    def apply(*gradients):
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        return tf.constant(0)  # branches have to return the same

    def skip():
        optimizer.iterations.assign_add(1)
        return tf.constant(0)

    def apply_or_skip(strategy, finite, *gradients):
        # Not in the replicas, which must not meet each other within a branch. All of them say the same of one sum.
        finite = strategy.experimental_local_results(finite)[0]
        tf.cond(finite, lambda: strategy.run(apply, args=gradients), lambda: strategy.run(skip))

    tf.distribute.get_replica_context().merge_call(apply_or_skip, args=(finite, *gradients))
    assign([scaling.scale, scaling.good_steps], scaling.after(finite))
