"""Train a Vision Transformer on long-tailed images with DeiT-LT: flat CNN teacher, dual-token student, table, files.

    python -m deitlt_tf.train --flagfile=configs/digits_lt.cfg
    python -m deitlt_tf.train --flagfile=configs/folder.cfg --data_dir=my_images --workdir=runs/first

The teacher is trained first (or taken with --teacher=PATH), then the student is distilled from it and evaluated by
head / mid / tail for CLS, DIST and their mean. Killed at any moment, the same command goes on where it was.
"""

import copy
from pathlib import Path
from types import SimpleNamespace

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import DEFAULTS, FREE
from deitlt_tf.training import student


def main(flags: SimpleNamespace) -> None:
    if not flags.workdir:
        raise ValueError("--workdir is missing: name the folder where the run is kept, e.g. --workdir=runs/first.")
    from deitlt_tf.devices.strategy import prepare, running

    with running(flags.strategy, logical_cpus=flags.logical_cpus, timeout_seconds=flags.worker_timeout):
        prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
        train(flags)


def train(flags: SimpleNamespace) -> None:
    """Teacher, student and, if asked, the plain ViT beside; tables and files."""
    from deitlt_tf.data import sources
    from deitlt_tf.devices.strategy import is_chief
    from deitlt_tf.evaluation import tables
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.runs.files import write_json
    from deitlt_tf.runs.folder import refuse_other
    from deitlt_tf.training.teacher import train_teacher

    if flags.teacher_sees == "clean" and flags.distillation == "soft":
        raise ValueError("--teacher_sees=clean mixes the classes that the teacher chose: it needs --distillation=hard.")
    folder = Path(flags.workdir)
    refuse_other(folder, vars(flags), free=FREE, defaults=DEFAULTS)  # before anything takes time or writes
    splits = load_splits(flags, folder=folder)
    student.claim_run(flags, folder, splits)
    counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
    teacher = None
    if not flags.method.startswith("vit"):
        given = student.find_teacher(flags.teacher) if flags.teacher else train_teacher(flags, splits)
        teacher = student.keep_teacher(given, folder / "teacher.keras", class_names=splits.train.class_names)
    results = student.train_student(flags, splits, folder=folder, teacher=teacher)
    if flags.baseline and teacher is not None:
        plain = copy.copy(flags)
        plain.method, plain.workdir, plain.baseline, plain.teacher_labels = "vit", str(folder / "vit"), False, ""
        student.claim_run(plain, folder / "vit", splits)
        results["vit"] = student.train_student(plain, splits, folder=folder / "vit", teacher=None)["raw"]
        if is_chief():
            write_json(folder / "results.json", results)
    labels = {"vit": "ViT", "teacher": "teacher", "raw": "student", "ema": "EMA", "best": "best"}
    rows = {}
    for name in filter(results.get, labels):
        rows |= tables.rows_of(labels[name], results[name])
    tables.print_tables(rows, counts)
    print(f"\n{folder}: " + ", ".join(path.name for path in sorted(folder.iterdir()) if path.is_file()))


if __name__ == "__main__":
    command_line.program(main, __doc__)
