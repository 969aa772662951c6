"""Evaluate a finished run again: CLS, DIST and mean by head / mid / tail, for the student, its EMA and the teacher.

    python -m deitlt_tf.evaluate --workdir=runs/first [--data_dir=...]

needs nothing but the workdir and the data that its flags.cfg names; flags after it win.
"""

from pathlib import Path
from types import SimpleNamespace

from deitlt_tf.recipes import command_line


def main(flags: SimpleNamespace) -> None:
    from deitlt_tf.devices.strategy import prepare, running

    with running(flags.strategy, logical_cpus=flags.logical_cpus, timeout_seconds=flags.worker_timeout):
        prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
        evaluate(flags)


def evaluate(flags: SimpleNamespace) -> None:
    """Print the tables of all models of --workdir."""
    from deitlt_tf.data import decode, sources
    from deitlt_tf.evaluation import tables
    from deitlt_tf.models import interface
    from deitlt_tf.recipes.recipe import max_pixels_of
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.runs.models import load_model, same_classes
    from deitlt_tf.training.views import measure_model

    folder = Path(flags.workdir)
    splits = load_splits(flags, folder=folder)
    class_names = splits.train.class_names
    counts = sources.class_counts(splits.train.labels, len(class_names))
    rows = {}
    for name, label in {"teacher": "teacher", "student": "student", "student_ema": "EMA"}.items():
        path = folder / f"{name}.keras"
        if not path.is_file():
            continue
        model, names = load_model(path)
        outputs = list(interface.heads(model.output).values())
        same_classes(names, class_names, path=path, num_outputs=outputs[0].shape[-1])
        measured = decode.naming_bad_images(
            lambda model=model, name=name: measure_model(
                model, splits.test, flags, class_counts=counts, teacher=name == "teacher", title=name
            ),
            splits,
            max_pixels=max_pixels_of(flags),
        )
        rows |= tables.rows_of(label, measured)
    if not rows:
        raise FileNotFoundError(f"{folder} holds no finished model: neither student.keras nor teacher.keras.")
    tables.print_tables(rows, counts)


if __name__ == "__main__":
    command_line.program(main, __doc__, from_workdir=True)
