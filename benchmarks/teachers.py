"""Every kind of teacher at an equal budget on one long-tailed folder of small images: accuracy, flatness, time.

    python benchmarks/teachers.py --images=cifar10_lt --out_dir=runs/teachers

trains each row of ROWS with `deitlt_tf.train_teacher` on top of configs/folder_small.cfg and COMMON (ResNet-32 or its
multi-expert sister), skips what is finished, and prints one table, also left in OUT_DIR/teachers.json. Killed, it goes
on. The budget is processor time: epochs are chosen so that every row costs about what eight epochs of one view with SAM
cost. `s/epoch` is measured apart, all teachers taking turns, as the median of the turns; `sharpness` is the rise of the
cross-entropy over training images when all weights move by 0.05 along its gradient (the network as it serves, LDAM's
cosines times 30).
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

from deitlt_tf.recipes import command_line

RECIPE = Path(__file__).parent.parent / "configs" / "folder_small.cfg"
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
SAMPLE = 2000  # training images that sharpness is measured on
TURNS, STEPS = 7, 4  # of the timing


def main(argv: list[str]) -> None:
    del argv
    out = Path(flags.FLAGS.out_dir)
    for name, row in ROWS.items():
        command = [sys.executable, "-m", "deitlt_tf.train_teacher", *arguments(name, row, out)]
        subprocess.run(command, check=True)
    table = {name: measured(name, row, out) for name, row in ROWS.items()}
    seconds = timed(out)
    for name, values in table.items():
        values["seconds_per_epoch"] = seconds[name]
    (out / "teachers.json").write_text(json.dumps(table, indent=1) + "\n")
    columns = ("overall", "head", "mid", "tail", "loss", "sharpness", "seconds_per_epoch", "epochs")
    print("| teacher |" + " | ".join(columns) + " |")
    for name, values in table.items():
        print(f"| {name} | " + " | ".join(f"{values[column]:.4g}" for column in columns) + " |")


def arguments(name: str, row: list[str], out: Path) -> list[str]:
    folder = out / name.lower().replace(" + ", "_").replace(" ", "_")
    return [f"--flagfile={RECIPE}", f"--data_dir={flags.FLAGS.images}", f"--workdir={folder}", *COMMON, *row]


def parsed(name: str, row: list[str], out: Path):
    return command_line.parse(["teachers", *arguments(name, row, out)])


def measured(name: str, row: list[str], out: Path) -> dict[str, float]:
    """Accuracy of the finished teacher as it wrote it, and how sharp its minimum is."""
    import numpy as np

    from deitlt_tf import losses, sam
    from deitlt_tf.data import sources
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.runs.models import load_model
    from deitlt_tf.training.teacher import folder_of
    from deitlt_tf.training.views import evaluation_batches

    recipe = parsed(name, row, out)
    folder = folder_of(recipe)
    accuracy = json.loads((folder / "results.json").read_text())["teacher"]["paper"]["cls"]
    network, _ = load_model(folder / "teacher.keras")
    train = load_splits(recipe, folder=folder).train
    some = sources.take(train, np.random.default_rng(0).permutation(len(train))[:SAMPLE])
    batches = list(evaluation_batches(some, recipe, teacher=True, batch=250))

    def loss(batch):
        return losses.cross_entropy(batch[1], network(batch[0], training=False))

    value, rise = sam.sharpness(loss, network.trainable_variables, batches, rho=0.05)
    return {**accuracy, "loss": value, "sharpness": rise, "epochs": recipe.teacher_epochs}


def timed(out: Path) -> dict[str, float]:
    """Median seconds of an epoch's steps (input pipeline apart), the teachers taking turns."""
    import tensorflow as tf

    from deitlt_tf.data import pipeline, sources
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.training.teacher import make
    from deitlt_tf.training.views import train_view

    steps, epoch = {}, {}
    for name, row in ROWS.items():
        recipe = parsed(name, row, out)
        train = load_splits(recipe, folder=out).train
        batch = recipe.teacher_batch_size
        epoch[name] = pipeline.steps_per_epoch(len(train), batch=batch)
        counts = sources.class_counts(train.labels, len(train.class_names))
        teacher = make(recipe, counts, steps_per_epoch=epoch[name])
        view = train_view(recipe, teacher=True, views=teacher.objective.views)
        stream = pipeline.train(train, view=view, batch=batch, steps=1, steps_per_epoch=1)
        data = next(iter(stream))
        function = tf.function(teacher.train_step)
        function(data)  # traces
        steps[name] = lambda function=function, data=data: [function(data) for _ in range(STEPS)]
    seen = {name: [] for name in ROWS}
    for _ in range(TURNS):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seen[name].append((time.perf_counter() - start) / STEPS)
    return {name: statistics.median(values) * epoch[name] for name, values in seen.items()}


if __name__ == "__main__":
    flags.DEFINE_string("images", None, "Folder with train/<class>/ and test/<class>/.", required=True)
    flags.DEFINE_string("out_dir", "runs/teachers", "Where the runs are kept.")
    app.run(main)
