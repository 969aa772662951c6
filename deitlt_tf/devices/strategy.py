"""Where a step runs: devices, worker processes, precision, seeds."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from deitlt_tf.devices import cluster, replicas

# Errors of a collective operation when another worker has died or does not answer in time.
PEER_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


@contextlib.contextmanager
def running(name: str, *, logical_cpus: int = 0, timeout_seconds: float = 600) -> Iterator[tf.distribute.Strategy]:
    """The scope of `make_strategy`. With several workers only the chief prints, and when one dies, all of them end.

    Raises ConnectionError where another worker has died or is silent. Waiting for it does not help, because its
    collective operations are lost. Start all workers again: they go on from the last checkpoint.
    """
    try:
        strategy = make_strategy(name, logical_cpus=logical_cpus, timeout_seconds=timeout_seconds)
        with strategy.scope(), contextlib.ExitStack() as stack:
            if not is_chief():
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield strategy
            wait_for_all()  # a worker that exits early looks dead to the workers that still write
    except PEER_ERRORS as error:
        if name != "multi_worker":
            raise
        reason = str(error).strip().splitlines()[0]
        raise ConnectionError(
            f"{cluster.task()} has lost another worker ({type(error).__name__}: {reason[:200]}). "
            "Start all workers again: the same command goes on from the last checkpoint."
        ) from error


def make_strategy(name: str, *, logical_cpus: int = 0, timeout_seconds: float = 600) -> tf.distribute.Strategy:
    """The strategy `name`: none, mirrored or multi_worker.

    name: "none": one device; "mirrored": all GPUs of this machine, or the logical CPUs; "multi_worker": all GPUs of all
      processes of TF_CONFIG, or of the SLURM job step where TF_CONFIG is not set.
    logical_cpus: int. "mirrored" runs on this number of logical devices of the CPU instead of GPUs; 0 = GPUs.
    timeout_seconds: float. "multi_worker": how long a worker waits for the others within one operation. Default: 600.
    Call it before TensorFlow has initialised its devices, if the strategy has logical CPUs or several workers.
    Raises ValueError for an unknown name, and for a cluster that `cluster` refuses.
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
    raise ValueError(f"strategy={name} is unknown: choose none, mirrored or multi_worker.")


def is_chief() -> bool:
    """Whether this process writes files and prints: the first worker, or the only process."""
    return tf.distribute.get_strategy().extended.should_checkpoint


def workers() -> int:
    """Number of worker processes of the current strategy."""
    resolver = tf.distribute.get_strategy().cluster_resolver
    return max(1, sum(map(len, resolver.cluster_spec().as_dict().values()))) if resolver else 1


def from_chief(number: int) -> int:
    """The chief's `number`, on every worker.

    Every worker has to call it, and each waits until all have: it is also a barrier.
    """
    if workers() == 1:
        return number
    own = tf.constant(number if is_chief() else 0, tf.int64)

    def chief_number() -> tf.Tensor:
        return replicas.all_sum(tf.where(replicas.replica()[0] == 0, own, 0))

    strategy = tf.distribute.get_strategy()
    return int(strategy.experimental_local_results(strategy.run(tf.function(chief_number)))[0])


def wait_for_all() -> None:
    """Waits until every worker has called it. Files that the chief wrote before, the others can read afterwards."""
    from_chief(0)


def distributed(make: Callable[..., tf.data.Dataset]) -> tf.distribute.DistributedDataset:
    """Batches for all replicas; every worker makes its own share.

    make: function of worker=, workers= and replicas= (of all workers), which returns this worker's batches. A batch is
      for one replica; the worker's replicas take batches in turn. See `pipeline.train` and `pipeline.evaluation`.
    """

    def dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return make(
            worker=context.input_pipeline_id,
            workers=context.num_input_pipelines,
            replicas=context.num_replicas_in_sync,
        )

    return tf.distribute.get_strategy().distribute_datasets_from_function(dataset)


def prepare(*, seed: int, precision: str, deterministic: bool) -> None:
    """Sets the seed of weight initialisation, the dtype policy and, if `deterministic`, repeatable operations.

    seed: int. precision: a dtype policy of Keras, e.g. "float32" or "mixed_bfloat16".
    deterministic: bool. Operations then give the same bits in every run.
    """
    # TensorFlow warns of retracing when several models are evaluated in one process, although each is traced once.
    tf.get_logger().setLevel("ERROR")
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
