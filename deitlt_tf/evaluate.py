"""Evaluate a finished run again: accuracy by head / mid / tail of the student, its EMA and the teacher.

    python -m deitlt_tf.evaluate --workdir=runs/first [--data_dir=...]

needs only the workdir and the data that its flags.cfg names. Flags on the command line override those of flags.cfg.
"""

import functools

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

# file -> name in the table
ROWS = {"teacher": "teacher", "student": "student", "student_ema": "EMA", "student_best": "best"}


def main(recipe: Recipe) -> None:
    from deitlt_tf.devices.strategy import prepare, running

    with running(**recipe.run.devices()):
        prepare(**recipe.run.numerics())
        evaluate(recipe)


def evaluate(recipe: Recipe) -> None:
    """Print the tables of all models of the workdir. Raises FileNotFoundError where it has none."""
    from deitlt_tf.data import decode, sources
    from deitlt_tf.evaluation import hierarchy, metrics, tables
    from deitlt_tf.evaluation.run import checked_model
    from deitlt_tf.models.interface import view_size
    from deitlt_tf.runs.data import identity, load_splits, note_other_data

    folder, max_pixels = recipe.run.folder, recipe.data.max_pixels
    splits = load_splits(**recipe.data.loading(), folder=folder)
    note_other_data(folder, **identity(splits, **recipe.data.loading()))
    counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
    rows: dict[str, dict[str, dict[str, float | None]]] = {}
    by_rank: dict[str, hierarchy.Summary] = {}
    for file, row in ROWS.items():
        path = folder / f"{file}.keras"
        if not path.is_file():
            continue
        model = checked_model(path, class_names=splits.train.class_names)
        flag, view = ("eval_resize", recipe.student.view)
        if row == "teacher":
            flag, view = ("teacher_eval_resize", recipe.teacher.view)
        view_size(model, resize=view.eval_resize, flag=flag)
        count = functools.partial(
            metrics.count,
            model,
            splits.test,
            eval_resize=view.eval_resize,
            max_pixels=max_pixels,
            num_classes=len(counts),
            title=row,
            taxonomy=splits.taxonomy,
        )
        class_hits = decode.naming_bad_images(count, splits, max_pixels=max_pixels)
        rows |= tables.rows_of(row, metrics.accuracies(class_hits, counts))
        if splits.taxonomy is not None:
            summaries = hierarchy.summaries(class_hits, counts, splits.taxonomy)
            by_rank |= {name: summaries[head] for head, name in tables.names_of(row, summaries).items()}
    if not rows:
        raise FileNotFoundError(f"{folder} holds no finished model: neither student.keras nor teacher.keras.")
    tables.print_tables(rows, counts)
    tables.print_by_rank(by_rank, counts)


def program() -> None:
    command_line.program(main, __doc__, from_workdir=True)


if __name__ == "__main__":
    program()
