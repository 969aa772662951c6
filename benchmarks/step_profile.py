"""Shares of processor time of a training step, by part of the step, from TensorFlow's profiler.

    python benchmarks/step_profile.py [--setting=cifar]
    python benchmarks/step_profile.py --recipe=configs/folder_small.cfg --images=cifar10_lt [--network=teacher]

The settings are those of train_step.py. With --recipe it is the step of the recipe's student, or of its teacher, on a
folder of images. Times of operations are added up over all threads. So a share says how much could be gained in that
part, and not how long a step waits for it. Printed first: processor time of a step without its input, median of ROUNDS
rounds.
"""

import argparse
import collections
import glob
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROUNDS, STEPS = 5, 10

# An operation belongs to the first part whose pattern its name contains, with # for each number in the name. The
# student's own operations have deit_<size> in their names, and those of a teacher that is asked for its maps
# `functional`, because it is then a model of its own.
PARTS = {
    "teacher": r"resnet|layer#\.#|functional",
    "AdamW": r"adam_w",
    "patches, by projection or stem": r"patch_embed",
    "attention: matrix products": r"attn.*(MatMul|BiasAdd:)",
    "MLP: matrix products": r"(mlp|blocks).*(MatMul|BiasAdd:)",
    "attention: softmax, transposes": r"attn",
    "gradients of biases": r"BiasAddGrad",
    "layer normalisation": r"norm",
    "GELU, drop path, residual sums": r"blocks|^CpuExecutable",
    "moving average": r"ema",
    "tokens, heads": r"deit",
    "mixing": r"cond",
}
TEACHER_PARTS = {
    "gradients of kernels": r"BackpropFilter",
    "gradients of inputs": r"BackpropInput",
    "convolutions": r"convolution",
    "BatchNorm": r"BatchNorm",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", default="cifar", help="Networks of the step: a setting of train_step.py.")
    parser.add_argument("--recipe", help="Flag file whose step is measured, in place of --setting.")
    parser.add_argument("--images", default="cifar10_lt", help="Folder of images for --recipe.")
    parser.add_argument("--network", default="student", choices=["student", "teacher"], help="Which of --recipe.")
    options = parser.parse_args()
    if options.recipe:
        try:
            work = step_of_recipe(options.recipe, options.images, options.network)
        except (ValueError, OSError) as error:
            parser.error(str(error))
    else:
        import train_step  # not above: its flags have names of a recipe's

        if options.setting not in train_step.SETTINGS:
            parser.error(f"--setting={options.setting} is unknown: choose from {', '.join(train_step.SETTINGS)}.")
        work = train_step.our_side(*train_step.SETTINGS[options.setting], "float32", False, cores=os.cpu_count())
    parts = TEACHER_PARTS if options.recipe and options.network == "teacher" else PARTS
    work()
    work()
    print(f"{1000 * statistics.median(processor_time(work) for _ in range(ROUNDS)):.0f} ms of processor time a step")
    picoseconds = collections.Counter()
    for name, duration in operations(work):
        picoseconds[part(name, parts)] += duration
    total = sum(picoseconds.values())
    print("| part | share |\n|---|---|")
    for name, time_of_part in picoseconds.most_common():
        print(f"| {name} | {100 * time_of_part / total:.0f} % |")


def step_of_recipe(recipe_file: str, images: str, network: str) -> Callable[[], None]:
    """A function that takes a training step of a recipe, with random weights and always the same batch."""
    import tensorflow as tf

    from deitlt_tf.data import sources
    from deitlt_tf.recipes import command_line
    from deitlt_tf.training import networks
    from deitlt_tf.training.student import StudentRun
    from deitlt_tf.training.teacher import TeacherRun

    folder = Path("step_profile")  # of a run that is never begun: nothing is written there
    flags = [f"--flagfile={recipe_file}", f"--workdir={folder}", "--nobaseline"]
    recipe = command_line.recipe_of(["step_profile", *flags])
    splits = sources.load("folder", data_dir=images)
    if network == "teacher":
        job = TeacherRun(recipe, splits, folder=folder).job()
    else:
        teacher = networks.teacher_network(recipe, num_classes=len(splits.train.class_names))
        job = StudentRun(recipe, splits, folder=folder, teacher=teacher).job()
    batch = next(iter(job.batches(0)))
    step = tf.function(lambda: job.model.step(batch)[0], autograph=False)

    def work() -> None:
        float(step()["loss"])

    return work


def processor_time(work: Callable) -> float:
    """Seconds of all cores together for one step, mean of STEPS."""
    begin = time.process_time()
    for _ in range(STEPS):
        work()
    return (time.process_time() - begin) / STEPS


def operations(work: Callable) -> list[tuple[str, int]]:
    """(name, picoseconds) of every operation of STEPS steps; numbers in the names are #."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(STEPS):
            work()
        tf.profiler.experimental.stop()
        (file,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        space = xplane_pb2.XSpace.FromString(Path(file).read_bytes())
    named = (
        (re.sub(r"\d+", "#", plane.event_metadata[event.metadata_id].name), event.duration_ps)
        for plane in space.planes
        if "CPU" in plane.name
        for line in plane.lines
        for event in line.events
    )
    return [(name, duration) for name, duration in named if is_operation(name)]


def is_operation(name: str) -> bool:
    """Whether a name is that of one operation of the graph or an XLA program, and not that of a whole graph's call."""
    if name == "CpuExecutable::ExecuteAsyncOnStream":
        return True
    return ":" in name and "::" not in name and not name.startswith("EagerLocalExecute")


def part(name: str, parts: dict[str, str]) -> str:
    """The key of `parts` that an operation belongs to."""
    return next((part for part, pattern in parts.items() if re.search(pattern, name)), "the rest")


if __name__ == "__main__":
    main()
