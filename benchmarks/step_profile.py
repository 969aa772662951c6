"""Shares of processor time of a distillation step, by part of the step, from TensorFlow's profiler.

    python benchmarks/step_profile.py [--setting=cifar]

The settings are those of train_step.py. Times of operations are added up over all threads. So a share says how much
could be gained in that part, and not how long a step waits for it.
"""

import collections
import glob
import re
import tempfile

import train_step
from absl import app, flags

SETTING = flags.DEFINE_enum(
    "setting", "cifar", list(train_step.SETTINGS), "Networks of the step: a setting of train_step.py."
)
STEPS = 3

# An operation belongs to the first part whose pattern its name contains, with # for each number in the name. The
# student's own operations have deit_<size> in their names.
PARTS = {
    "teacher": r"resnet|layer#\.#",
    "AdamW": r"adam_w",
    "attention: matrix products": r"attn.*(MatMul|BiasAdd:)",
    "MLP: matrix products": r"(mlp|blocks).*(MatMul|BiasAdd:)",
    "attention: softmax, transposes": r"attn",
    "gradients of biases": r"BiasAddGrad",
    "layer normalisation": r"norm",
    "GELU, drop path, residual sums": r"blocks|^CpuExecutable",
    "moving average": r"ema",
    "patches, tokens, heads": r"deit",
    "mixing": r"cond",
}


def main(argv: list[str]) -> None:
    del argv
    import os

    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    work = train_step.our_side(*train_step.SETTINGS[SETTING.value], "float32", False, cores=os.cpu_count())
    work()
    work()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(STEPS):
            work()
        tf.profiler.experimental.stop()
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        with open(file, "rb") as stream:
            space = xplane_pb2.XSpace.FromString(stream.read())
    picoseconds = collections.Counter()
    for plane in space.planes:
        if "CPU" in plane.name:
            for event in (event for line in plane.lines for event in line.events):
                name = re.sub(r"\d+", "#", plane.event_metadata[event.metadata_id].name)
                if is_operation(name):
                    picoseconds[part(name)] += event.duration_ps
    total = sum(picoseconds.values())
    print("| part | share |\n|---|---|")
    for name, time in picoseconds.most_common():
        print(f"| {name} | {100 * time / total:.0f} % |")


def is_operation(name: str) -> bool:
    """Whether a name is that of one operation of the graph or an XLA program, and not that of a whole graph's call."""
    if name == "CpuExecutable::ExecuteAsyncOnStream":
        return True
    return ":" in name and "::" not in name and not name.startswith("EagerLocalExecute")


def part(name: str) -> str:
    """The key of PARTS that an operation belongs to."""
    return next((part for part, pattern in PARTS.items() if re.search(pattern, name)), "the rest")


if __name__ == "__main__":
    app.run(main)
