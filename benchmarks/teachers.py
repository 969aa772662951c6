"""Every kind of teacher at an equal budget on one long-tailed folder of small images: accuracy, flatness, time.

    python benchmarks/teachers.py --images=cifar10_lt --out_dir=runs/teachers

trains each row of ROWS with `deitlt_tf.train_teacher`, on top of benchmarks/ablation.cfg and COMMON (ResNet-32, or the
network of three experts of the same depth). It skips finished rows, prints one table, and writes the same numbers to
OUT_DIR/teachers.json. After a kill the same command continues. The budget is processor time: the epochs of a row are
chosen so that it costs about as much as eight epochs of one view with SAM. `s/epoch` is measured separately, as the
median of turns that the teachers take one after the other. `sharpness` is the rise of the cross-entropy over training
images when all weights move by 0.05 along its gradient. It is that of the network as it is served, so the cosines of
LDAM are multiplied by 30.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

RECIPE = Path(__file__).with_name("ablation.cfg")
COMMON = ["--teacher_model=resnet32", "--teacher_epochs=8", "--teacher_rho=0.05"]
COMMON += ["--teacher_classifier=linear", "--teacher_reweight_epoch=-1"]
ROWS = {
    "CE": ["--teacher_loss=ce", "--teacher_rho=0", "--teacher_epochs=16"],
    "LDAM + DRW + SAM": ["--teacher_loss=ldam", "--teacher_classifier=cosine", "--teacher_reweight_epoch=6"],
    "balanced softmax + SAM": ["--teacher_loss=balanced_softmax"],
    "PaCo + SAM": ["--teacher_loss=paco", "--teacher_epochs=6"],
    "MDCS": ["--teacher_loss=mdcs", "--teacher_model=mdcs_resnet32", "--teacher_rho=0", "--teacher_epochs=5"],
    "GLMC + SAM": ["--teacher_loss=glmc", "--teacher_epochs=4"],
}
SAMPLE = 2000  # training images for the sharpness
TURNS, STEPS = 7, 4  # of the measurement of time: turns of each teacher, steps of a turn


def main(argv: list[str]) -> None:
    del argv
    out = Path(flags.FLAGS.out_dir)
    for name, row in ROWS.items():
        command = [sys.executable, "-m", "deitlt_tf.train_teacher", *arguments(name, row, out)]
        subprocess.run(command, check=True)
    table = {name: measure(name, row, out) for name, row in ROWS.items()}
    seconds = seconds_per_epoch(out)
    for name, values in table.items():
        values["seconds_per_epoch"] = seconds[name]
    (out / "teachers.json").write_text(json.dumps(table, indent=1) + "\n")
    columns = ("overall", "head", "mid", "tail", "loss", "sharpness", "seconds_per_epoch", "epochs")
    print("| teacher |" + " | ".join(columns) + " |")
    for name, values in table.items():
        print(f"| {name} | " + " | ".join(f"{values[column]:.4g}" for column in columns) + " |")


def arguments(name: str, row: list[str], out: Path) -> list[str]:
    """Arguments of `deitlt_tf.train_teacher` for one row."""
    folder = out / name.lower().replace(" + ", "_").replace(" ", "_")
    return [f"--flagfile={RECIPE}", f"--data_dir={flags.FLAGS.images}", f"--workdir={folder}", *COMMON, *row]


def recipe_of(name: str, row: list[str], out: Path) -> Recipe:
    return command_line.recipe_of(["teachers", *arguments(name, row, out)])


def measure(name: str, row: list[str], out: Path) -> dict[str, float]:
    """Accuracy of the finished teacher, from its results.json, and the sharpness of its minimum."""
    import numpy as np

    from deitlt_tf import losses, sam
    from deitlt_tf.data import pipeline, sources
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.runs.models import load_model
    from deitlt_tf.training.teacher import teacher_folder

    recipe = recipe_of(name, row, out)
    folder = teacher_folder(recipe)
    accuracy = json.loads((folder / "results.json").read_text())["teacher"]["paper"]["cls"]
    network, _ = load_model(folder / "teacher.keras")
    train = load_splits(**recipe.data.loading(), folder=folder).train
    sample = sources.take(train, np.random.default_rng(0).permutation(len(train))[:SAMPLE])
    view = {"size": network.input_shape[1], "resize": recipe.teacher.view.eval_resize}
    batches = list(pipeline.evaluation_batches(sample, batch=250, max_pixels=recipe.data.max_pixels, **view))

    def loss(batch):
        return losses.cross_entropy(batch[1], network(batch[0], training=False))

    value, rise = sam.sharpness(loss, network.trainable_variables, batches, rho=0.05)
    return {**accuracy, "loss": value, "sharpness": rise, "epochs": recipe.teacher.schedule.epochs}


def seconds_per_epoch(out: Path) -> dict[str, float]:
    """Median seconds of the steps of an epoch, without the input pipeline; the teachers take turns."""
    import tensorflow as tf

    from deitlt_tf.data import pipeline, sources
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.training.teacher import make_teacher, training_view

    steps, epoch = {}, {}
    for name, row in ROWS.items():
        recipe = recipe_of(name, row, out)
        train = load_splits(**recipe.data.loading(), folder=out).train
        batch = recipe.teacher.batch.size
        epoch[name] = pipeline.steps_per_epoch(len(train), batch=batch)
        counts = sources.class_counts(train.labels, len(train.class_names))
        teacher = make_teacher(recipe, counts, steps_per_epoch=epoch[name])
        view = training_view(recipe, views=teacher.objective.views)
        stream = pipeline.train(train, view=view, batch=batch, steps=1, steps_per_epoch=1)
        data = next(iter(stream))
        function = tf.function(teacher.train_step)
        function(data)  # the first call traces
        steps[name] = lambda function=function, data=data: [function(data) for _ in range(STEPS)]
    seconds = {name: [] for name in ROWS}
    for _ in range(TURNS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append((time.perf_counter() - start) / STEPS)
    return {name: statistics.median(values) * epoch[name] for name, values in seconds.items()}


if __name__ == "__main__":
    flags.DEFINE_string("images", None, "Folder of images, with train/<class>/ and test/<class>/.", required=True)
    flags.DEFINE_string("out_dir", "runs/teachers", "Folder for all runs and for teachers.json.")
    app.run(main)
