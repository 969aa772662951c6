"""Where the time of a distillation step goes: shares of processor time by part, from TensorFlow's profiler.

    python benchmarks/step_profile.py [--setting=cifar]

Settings are those of train_step.py. Times of operations are added up over all threads, so shares say what there is to
gain, not how long something is waited for.
"""

import collections
import glob
import re
import tempfile

import train_step
from absl import app, flags

SETTING = flags.DEFINE_enum("setting", "cifar", list(train_step.SETTINGS), "Of train_step.py.")
STEPS = 3

# The first pattern that an operation's name, digits as #, has in it decides; the student is called deit_<size>.
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

    work = train_step.ours(*train_step.SETTINGS[SETTING.value], "float32", False, cores=os.cpu_count())
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
    time = collections.Counter()
    for plane in space.planes:
        if "CPU" in plane.name:
            for event in (event for line in plane.lines for event in line.events):
                name = re.sub(r"\d+", "#", plane.event_metadata[event.metadata_id].name)
                if is_operation(name):
                    time[part(name)] += event.duration_ps
    total = sum(time.values())
    print("| part | share |\n|---|---|")
    for name, spent in time.most_common():
        print(f"| {name} | {100 * spent / total:.0f} % |")


def is_operation(name: str) -> bool:
    """Whether it is one operation of the graph, or a program of XLA, and not what runs a whole graph."""
    if name == "CpuExecutable::ExecuteAsyncOnStream":
        return True
    return ":" in name and "::" not in name and not name.startswith("EagerLocalExecute")


def part(name: str) -> str:
    return next((part for part, pattern in PARTS.items() if re.search(pattern, name)), "the rest")


if __name__ == "__main__":
    app.run(main)
