"""Which processes train together: TF_CONFIG, written by whoever starts them, or made from SLURM's variables."""

import json
import os
import re

import tensorflow as tf


def of_slurm() -> dict:
    """TF_CONFIG of a SLURM job step: one worker a task, on port 8888 of its node and the ports after it.

    TensorFlow's resolver sorts nodes as text, n10 before n9, and SLURM by number; here they stand as SLURM has them.
    Raises ValueError outside of a job step, and where a task is not on the node that follows from its number.
    """
    try:
        # One pretended GPU a task: the resolver would divide the node's among its tasks, which SLURM has already done.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=2**20, gpus_per_task=1, auto_set_gpu=False
        )
    except RuntimeError as error:
        raise ValueError(f"--strategy=multi_worker needs TF_CONFIG, or a SLURM job step: {error}") from error

    def by_number(address: str) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", address)]

    addresses = sorted(resolver.cluster_spec().as_dict()["worker"], key=by_number)
    index = int(os.environ["SLURM_PROCID"])
    here, there = os.environ.get("SLURMD_NODENAME"), addresses[index].rpartition(":")[0]
    if here and here != there:
        raise ValueError(
            f"SLURM runs task {index} on {here} and not on {there}: use --distribution=block, or set TF_CONFIG."
        )
    return {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}


def check(text: str) -> None:
    """Raises ValueError unless this is a TF_CONFIG of workers (one of them may be called chief)."""
    wanted = 'TF_CONFIG has to be {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": N}}'
    try:
        config = json.loads(text)
        cluster, kind, index = config["cluster"], config["task"]["type"], int(config["task"]["index"])
        address = cluster[kind][index]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{wanted}, and here it is {text!r}.") from error
    if index < 0 or not cluster.keys() <= {"chief", "worker"} or not re.fullmatch(r"\S+:\d+", str(address)):
        raise ValueError(f"{wanted}, and here it is {text!r}.")


def task() -> str:
    """This process as TF_CONFIG has it, e.g. `worker 1`."""
    found = json.loads(os.environ["TF_CONFIG"])["task"]
    return f"{found['type']} {found['index']}"
