"""Where a step runs: strategy, precision, seeds; and the few things that replicas have to do together."""

import keras
import tensorflow as tf


def make_strategy(name: str, *, logical_cpus: int = 0) -> tf.distribute.Strategy:
    """`none`: one device; `mirrored`: all GPUs of this machine, or `logical_cpus` pretended devices on the CPU.

    Logical CPUs have to be asked for before TensorFlow has touched its devices.
    """
    if logical_cpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * logical_cpus)
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        names = [f"CPU:{i}" for i in range(logical_cpus)] or None
        return tf.distribute.MirroredStrategy(names)
    raise ValueError(f"--strategy={name} is unknown: choose none or mirrored.")


def prepare(*, seed: int, precision: str, deterministic: bool) -> None:
    """Seeds of weight initialisation, the dtype policy, and (if asked) operations that repeat bit by bit."""
    tf.get_logger().setLevel("ERROR")  # its retracing warnings do not tell one model's evaluation from another's
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def replica() -> tuple[tf.Tensor, int]:
    """This replica's number and how many there are; call inside a step."""
    context = tf.distribute.get_replica_context()
    return tf.convert_to_tensor(context.replica_id_in_sync_group), context.num_replicas_in_sync


def all_sum(tensors):
    """Sum of a tensor (or a nest of them) over replicas; every replica gets the sum."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tensors
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)


def assign(variables: list, values: list[tf.Tensor]) -> None:
    """variable <- value for each pair, from inside a step; the values have to be equal on all replicas.

    Keras weights are mirrored without an aggregation rule, so TensorFlow refuses a plain `assign` there.
    """

    def update(strategy, *new):
        for variable, value in zip(variables, new, strict=True):
            strategy.extended.update(variable.value, lambda v, x: v.assign(x), args=(value,))

    tf.distribute.get_replica_context().merge_call(update, args=tuple(values))


def step_seed(seed: int, step: tf.Tensor) -> tf.Tensor:
    """The seed int32 [2] from which everything random of one step on this replica derives."""
    both = tf.stack([tf.constant(seed, tf.int32), tf.cast(step, tf.int32)])
    return tf.random.experimental.stateless_fold_in(both, tf.cast(replica()[0], tf.int32))


def apply_summed(optimizer: keras.optimizers.Optimizer, gradients: list, variables: list, *, clip_norm: float) -> None:
    """One optimiser step with the gradients summed over replicas, their global norm cut at `clip_norm` (0: not cut).

    Keras sums over replicas when it applies; dividing by their number here leaves exactly the sum that was clipped.
    """
    gradients = all_sum(gradients)
    if clip_norm:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    count = replica()[1]
    optimizer.apply_gradients([(g / count, v) for g, v in zip(gradients, variables, strict=True)])
