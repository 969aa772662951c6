"""Which processes train together: TF_CONFIG, set before the processes start, or derived from SLURM's variables."""

import json
import os
import re

import tensorflow as tf


def of_slurm() -> dict:
    """TF_CONFIG of a SLURM job step: one worker for each task, on port 8888 of its node and the ports after it.

    The nodes are in SLURM's order, by number. TensorFlow's resolver sorts them as text, n10 before n9.
    Raises ValueError outside of a job step, and for a task that SLURM runs on another node than this order says.
    """
    try:
        # We declare one GPU for each task. The resolver would divide a node's GPUs among its tasks, which SLURM has
        # already done.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=2**20, gpus_per_task=1, auto_set_gpu=False
        )
    except RuntimeError as error:
        raise ValueError(f"strategy=multi_worker needs TF_CONFIG, or a SLURM job step: {error}") from error

    def by_number(address: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", address)]

    addresses = sorted(resolver.cluster_spec().as_dict()["worker"], key=by_number)
    index = int(os.environ["SLURM_PROCID"])
    node, expected = os.environ.get("SLURMD_NODENAME"), addresses[index].rpartition(":")[0]
    if node and node != expected:
        raise ValueError(
            f"SLURM runs task {index} on {node} and not on {expected}: use --distribution=block or set TF_CONFIG."
        )
    return {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}


def check(text: str) -> None:
    """Raises ValueError unless `text` is a TF_CONFIG of workers, of which one may be called chief."""
    form = 'TF_CONFIG has to be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}'
    try:
        config = json.loads(text)
        cluster, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        address = cluster[kind][index]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{form}, and here it is {text!r}.") from error
    if index < 0 or not cluster.keys() <= {"chief", "worker"} or not re.fullmatch(r"\S+:\d+", str(address)):
        raise ValueError(f"{form}, and here it is {text!r}.")


def task() -> str:
    """The name of this process in TF_CONFIG, e.g. `worker 1`."""
    own = json.loads(os.environ["TF_CONFIG"])["task"]
    return f"{own['type']} {own['index']}"
