"""Two real worker processes on this machine, and steps to take on them; what they end with is an .npz of each.

    python workers.py OUT.npz        with TF_CONFIG

is one of them; tests start both, and take the same steps on one device and on two in their own process.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf import distill, models, optimizers, teacher
from deitlt_tf.data import pipeline
from deitlt_tf.data.dataset import Source
from deitlt_tf.devices.strategy import distributed, prepare, running
from deitlt_tf.models import adapters
from deitlt_tf.models.weights import changing
from deitlt_tf.objectives import paco
from deitlt_tf.training import loop
from deitlt_tf.training.job import total_variables
from helpers import ROOT, TESTS

HERE = Path(__file__).parent
COUNTS = (9, 6, 4, 2)
BATCH = 8


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@contextlib.contextmanager
def started(commands: Sequence[Sequence[str]]) -> Iterator[list[subprocess.Popen]]:
    """One process for each command, workers 0, 1, ... of one cluster; none of them outlives the block."""
    cluster = {"worker": [f"localhost:{port}" for port in free_ports(len(commands))]}
    path = os.pathsep.join(map(str, (TESTS, ROOT)))
    with contextlib.ExitStack() as stack:
        processes = []
        for index, command in enumerate(commands):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            process = subprocess.Popen(
                [sys.executable, *command], env=os.environ | {"PYTHONPATH": path, "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def finish(processes: Sequence[subprocess.Popen], *, timeout: float) -> list[tuple[int, str]]:
    """Exit code and output of each."""
    printed = [process.communicate(timeout=timeout)[0] for process in processes]
    return [(process.returncode, text) for process, text in zip(processes, printed, strict=True)]


def data() -> Source:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), COUNTS).astype(np.int32)
    return Source(generator.integers(0, 256, (len(labels), 8, 8, 3)).astype(np.uint8), labels, tuple("abcd"))


def student(parts: int) -> tuple[keras.Model, list]:
    """Everything that a step can have: mixing, drop path, `parts` over all replicas, clipping, re-weighting, EMA."""
    keras.utils.set_random_seed(1)
    sizes = {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 4, "drop_path": 0.5}
    network = models.build("deit_nano", num_classes=4, image_size=8, **sizes)
    kernel = tf.constant(np.random.default_rng(1).normal(size=(8 * 8 * 3, 4)) / 1000, tf.float32)
    model = distill.Distiller(
        network, lambda x: tf.reshape(x, [-1, 8 * 8 * 3]) @ kernel, COUNTS,
        ema_decay=0.9, reweight_step=1, clip_norm=0.1, seed=3,
        accumulation=parts // tf.distribute.get_strategy().num_replicas_in_sync,
    )  # fmt: skip
    model.compile(optimizers.adamw(network, 1e-3))
    return model, total_variables(network.weights, model.ema.weights, model.optimizer.variables)


def adapted(parts: int) -> tuple[keras.Model, list]:
    """A frozen network with adapters and a cosine head; their variables alone."""
    keras.utils.set_random_seed(4)
    sizes = {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 4, "drop_path": 0}
    options = {"adapter": 2, "classifier": "cosine", "registers": 1, "layer_scale": 0.5, "activation": "quick_gelu"}
    network = models.build("vit_nano", num_classes=4, image_size=8, **sizes, **options)
    adapters.freeze(network, tune="adaptformer")
    for variable in network.trainable_variables:  # at their start, half of the adapters' weights have no gradient
        variable.assign(variable + keras.random.normal(variable.shape, stddev=0.1, seed=5))
    model = distill.Distiller(
        network, None, COUNTS, logit_adjustment=1.0, mixing={"probability": 0.0, "smoothing": 0.0}, ema_decay=0.9,
        accumulation=parts // tf.distribute.get_strategy().num_replicas_in_sync,
    )  # fmt: skip
    optimizer = optimizers.SGD(0.05, l2=1e-3)
    optimizer.build(model.trained)
    model.compile(optimizer)
    averaged = [ema for ema, _ in model.averaged]
    return model, total_variables(changing(network), averaged, model.optimizer.variables)


def cnn(*, contrastive: bool) -> tuple[keras.Model, list]:
    """SAM and clipping over a ResNet whose batch statistics are those of all replicas."""
    keras.utils.set_random_seed(2)
    classifier = "linear" if contrastive else "cosine"  # LDAM takes cosines
    network = models.build("resnet8", num_classes=4, image_size=8, classifier=classifier)
    objective = paco.Paco(network, COUNTS, queue=16, dim=4) if contrastive else None
    model = teacher.Teacher(network, COUNTS, objective, rho=0.1, reweight_step=1, clip_norm=1.0)
    optimizer = optimizers.SGD(0.05, l2=1e-3)
    optimizer.build(model.objective.trainable)
    model.compile(optimizer)
    return model, total_variables(network.weights, model.objective.trainable, model.state, optimizer.variables)


MODELS = {
    "student": lambda: student(parts=4),
    "adapted": lambda: adapted(parts=2),
    "teacher": lambda: cnn(contrastive=False),
    "paco": lambda: cnn(contrastive=True),
}


# The CNNs take one: a second one would start 1e-7 apart, where one ReLU changes sides, as it does on one device, too.
STEPS = {"student": 2, "adapted": 2, "teacher": 1, "paco": 1}


def after_steps(kind: str) -> dict[str, np.ndarray]:
    """Every variable and loss after each of the steps on the current strategy, from this worker's point of view."""
    model, variables = MODELS[kind]()
    steps = STEPS[kind]

    def view(image, seed):
        return (image, tf.reverse(image, [1])) if kind == "paco" else image

    def batches(**share):
        return pipeline.train(data(), view=view, batch=BATCH, steps=steps, steps_per_epoch=2, seed=5, **share)

    step = loop.make_step(model, model.optimizer, tf.distribute.get_strategy(), recording=False)
    values = {}
    for number, batch in enumerate(distributed(batches), start=1):
        parts, _, _ = step(batch, None, tf.constant(0.0))
        values |= {f"{kind} {number} {name}": np.array(value) for name, value in parts.items()}
        values |= {f"{kind} {number} {i:03d} {v.name}": np.array(v) for i, v in enumerate(variables)}
    return values


def after_fit() -> dict[str, np.ndarray]:
    """History of Keras' own fit of the student on the current strategy, its accuracies, and every variable after it."""
    model, variables = student(parts=4)
    source = data()
    batches = tf.data.Dataset.from_tensor_slices((source.images[:16], source.labels[:16])).batch(8, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = batches.with_options(options)
    values = model.fit(batches, epochs=2, shuffle=False, verbose=0).history
    values |= model.evaluate(batches, return_dict=True, verbose=0)
    values |= {f"{i:03d} {v.name}": v for i, v in enumerate(variables)}
    return {f"fit {name}": np.array(value) for name, value in values.items()}


if __name__ == "__main__":
    with running("multi_worker", timeout_seconds=60):
        prepare(seed=0, precision="float32", deterministic=True)
        steps = {name: x for kind in MODELS for name, x in after_steps(kind).items()}
        np.savez(Path(sys.argv[1]), **steps, **after_fit())
