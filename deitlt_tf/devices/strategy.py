"""Where a step runs: devices, worker processes, precision, seeds."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from deitlt_tf.devices import cluster, replicas

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
        return replicas.all_sum(tf.where(replicas.replica()[0] == 0, mine, 0))

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
