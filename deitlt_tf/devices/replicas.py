"""What replicas do together inside a step: sums, assignments, gathering, one optimiser step."""

from typing import Any

import keras
import tensorflow as tf

from deitlt_tf.devices import loss_scale


def fold(seed: tf.Tensor, number: int | tf.Tensor) -> tf.Tensor:
    """Another seed int [2], a function of `seed` and `number`."""
    return tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int32))


def global_sum(values: tf.Tensor) -> tf.Tensor:
    """The sum of all elements on all replicas, a scalar."""
    return all_sum(tf.reduce_sum(values))


def replica() -> tuple[tf.Tensor, int]:
    """This replica's number and the number of replicas; call it inside a step."""
    context = tf.distribute.get_replica_context()
    return tf.convert_to_tensor(context.replica_id_in_sync_group), context.num_replicas_in_sync


def all_sum(tensors: Any) -> Any:
    """The sum over replicas of a tensor, or of each tensor of a nest; every replica gets the sum."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    # tf.identity, because the only replica of a worker refuses to sum a tensor that is on no device yet, e.g. an
    # argument of the step.
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.nest.map_structure(tf.identity, tensors))


def assign(variables: list, values: list[tf.Tensor]) -> None:
    """variable <- value for each pair, from inside a step; the values have to be equal on all replicas.

    Keras mirrors its weights without an aggregation rule, so inside a step TensorFlow refuses a plain `assign`.
    """

    def update(strategy: tf.distribute.Strategy, *new_values: tf.Tensor) -> None:
        for variable, value in zip(variables, new_values, strict=True):
            strategy.extended.update(variable.value, lambda v, x: v.assign(x), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=tuple(values))


def gathered(x: tf.Tensor) -> tf.Tensor:
    """[B, ...] of all replicas, one after the other: [replicas * B, ...]; B has to be the same on all replicas.

    Computed as a sum over replicas of x in its own place and zeros elsewhere. That is one collective operation, and one
    for its gradient. TensorFlow's all_gather takes two for the gradient, and with several GPUs it goes through one
    device.
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
    """The seed int32 [2] of everything random in one of the `parts` of this replica's batch.

    It depends on the number of the part in the global batch, so two replicas draw the same as one replica with two
    parts.
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
    """One optimiser step with the gradients summed over replicas, their global norm clipped at `clip_norm` (0: not).

    scaling: the loss scale by which the losses were multiplied. If a gradient of any replica has overflowed, the
      weights stay as they are and only the step is counted. Defaults to None, losses that were not scaled.
    """
    gradients = all_sum(gradients)
    finite = tf.constant(True)
    if scaling:
        gradients = [g / scaling.scale for g in gradients]
        finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in gradients])
    if clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    # Keras sums over replicas when it applies gradients: of this quotient the sum is exactly the clipped gradient.
    gradients = [g / replica()[1] for g in gradients]

    if scaling is None:
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        return

    def apply(*gradients: tf.Tensor) -> tf.Tensor:
        optimizer.apply_gradients(list(zip(gradients, variables, strict=True)))
        return tf.constant(0)  # both branches of tf.cond have to return the same structure

    def skip() -> tf.Tensor:
        optimizer.iterations.assign_add(1)
        return tf.constant(0)

    def apply_or_skip(strategy: tf.distribute.Strategy, finite: tf.Tensor, *gradients: tf.Tensor) -> None:
        # The branch is taken outside of the replicas, because replicas must not communicate inside a branch. `finite`
        # is computed from the same sum on all replicas, so the value of the first one holds for all.
        finite = strategy.experimental_local_results(finite)[0]
        tf.cond(finite, lambda: strategy.run(apply, args=gradients), lambda: strategy.run(skip))

    tf.distribute.get_replica_context().merge_call(apply_or_skip, args=(finite, *gradients))
    assign(scaling.variables, scaling.next_values(finite))
