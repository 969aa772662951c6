"""Evaluate a finished run again: CLS, DIST and mean by head / mid / tail, for the student, its EMA and the teacher.

    python -m deitlt_tf.evaluate --workdir=runs/first [--data_dir=...]

needs nothing but the workdir and the data that its flags.cfg names; flags after it win.
"""

from pathlib import Path
from types import SimpleNamespace

from deitlt_tf import options


def main(flags: SimpleNamespace) -> None:
    from deitlt_tf import devices

    with devices.running(flags.strategy, logical_cpus=flags.logical_cpus, timeout_seconds=flags.worker_timeout):
        devices.prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
        evaluate(flags)


def evaluate(flags: SimpleNamespace) -> None:
    """Print the tables of all models of --workdir."""
    from deitlt_tf import assemble, metrics, workdir
    from deitlt_tf.data import sources

    folder = Path(flags.workdir)
    splits = assemble.splits(flags, folder=folder)
    class_names = splits.train.class_names
    counts = sources.class_counts(splits.train.labels, len(class_names))
    rows = {}
    for name, label in {"teacher": "teacher", "student": "student", "student_ema": "EMA"}.items():
        path = folder / f"{name}.keras"
        if not path.is_file():
            continue
        model, names = workdir.load_model(path)
        outputs = list(metrics.heads(model.output).values())
        workdir.same_classes(names, class_names, path=path, num_outputs=outputs[0].shape[-1])
        measured = assemble.naming_bad_images(
            lambda model=model, name=name: assemble.measure(
                model, splits.test, flags, class_counts=counts, teacher=name == "teacher", title=name
            ),
            splits,
            max_pixels=assemble.max_pixels(flags),
        )
        rows |= assemble.rows_of(label, measured)
    if not rows:
        raise FileNotFoundError(f"{folder} holds no finished model: neither student.keras nor teacher.keras.")
    assemble.print_tables(rows, counts)


if __name__ == "__main__":
    options.program(main, __doc__, from_workdir=True)
