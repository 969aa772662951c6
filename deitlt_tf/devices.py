"""Where a step runs: strategy, precision, seeds; and the few things that replicas and workers have to do together."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from deitlt_tf import cluster
from deitlt_tf.loss_scale import LossScale

# What a collective operation raises when another worker has died, or does not answer in time.
PEER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


@contextlib.contextmanager
def running(name: str, *, logical_cpus: int = 0, timeout_seconds: float = 600) -> Iterator[tf.distribute.Strategy]:
    """The scope of `make_strategy`. Of several workers only the chief prints, and one that dies ends all of them.

    Raises ConnectionError where another worker is gone or silent. It cannot be waited for: its collective operations
    are lost. Whatever started the workers starts all of them again, and they go on from the last checkpoint.
    """
    try:
        strategy = make_strategy(name, logical_cpus=logical_cpus, timeout_seconds=timeout_seconds)
        with strategy.scope(), contextlib.ExitStack() as stack:
            if not is_chief():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield strategy
            wait_for_all()  # one that leaves early looks dead to those that still write
    except PEER_ERRORS as error:
        if name != "multi_worker":
            raise
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(
            f"{cluster.task()} has lost another worker ({type(error).__name__}: {reason[:200]}). "
            "Start all workers again: the same command goes on from the last checkpoint."
        ) from error


def make_strategy(name: str, *, logical_cpus: int = 0, timeout_seconds: float = 600) -> tf.distribute.Strategy:
    """`none`: one device; `mirrored`: all GPUs of this machine, or `logical_cpus` pretended devices on the CPU;
    `multi_worker`: all GPUs of all processes that TF_CONFIG, or else a SLURM job step, names.

    Logical CPUs, and workers, have to be asked for before TensorFlow has touched its devices.
    timeout_seconds: of multi_worker: how long a worker waits for the others within one operation.
    """
    if logical_cpus:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * logical_cpus)
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        names = [f"CPU:{i}" for i in range(logical_cpus)] or None
        return tf.distribute.MirroredStrategy(names)
    if name == "multi_worker":
        if "TF_CONFIG" not in os.environ:
            os.environ["TF_CONFIG"] = json.dumps(cluster.of_slurm())
        cluster.check(os.environ["TF_CONFIG"])
        options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=timeout_seconds)
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    raise ValueError(f"--strategy={name} is unknown: choose none, mirrored or multi_worker.")


def is_chief() -> bool:
    """Whether this process writes files and prints: the first worker, or the only process."""
    return tf.distribute.get_strategy().extended.should_checkpoint


def workers() -> int:
    """Processes of the current strategy."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    return max(1, sum(map(len, resolver.cluster_spec().as_dict().values()))) if resolver else 1


def from_chief(number: int) -> int:
    """The chief's number, on every worker. All have to ask; until then the others wait, so it is a barrier, too."""
    if workers() == 1:
        return number
    mine = tf.constant(number if is_chief() else 0, tf.int64)

    def sent():
        return all_sum(tf.where(replica()[0] == 0, mine, 0))

    strategy = tf.distribute.get_strategy()
    return int(strategy.experimental_local_results(strategy.run(tf.function(sent)))[0])


def wait_for_all() -> None:
    """Until every worker is here: what the chief has written before, the others can read after it."""
    from_chief(0)


def distributed(make: Callable[..., tf.data.Dataset]):
    """Batches for all replicas; every worker makes its own share.

    make: keywords worker, workers, replicas (of all workers) -> this worker's batches, each for one replica, which
    take them in turn. See `pipeline.train` and `pipeline.evaluation`.
    """

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return make(
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
            replicas=context.num_replicas_in_sync,
        )

    return tf.distribute.get_strategy().distribute_datasets_from_function(dataset)


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
    scaling: LossScale | None = None,
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
