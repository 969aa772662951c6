"""Evaluate a finished run again: accuracy by head / mid / tail of the student, its EMA and the teacher.

    python -m deitlt_tf.evaluate --workdir=runs/first [--data_dir=...] [--taxonomy_file=...] [--sure=0.95]

needs only the workdir and the data that its flags.cfg names. Flags on the command line override those of flags.cfg.
Where the classes have a taxonomy, it also prints accuracy by rank, how severe mistakes are, and answers at the finest
rank that is sure. With a validation split it chooses the threshold for that, so that the share --sure of the answers
is right, and keeps it in WORKDIR/thresholds.json for --threshold=auto of exports and demo.
"""

import functools

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

# file -> name in the table
ROWS = {"teacher": "teacher", "student": "student", "student_ema": "EMA", "student_best": "best"}


def main(recipe: Recipe, *, sure: float = 0.95) -> None:
    from deitlt_tf.devices.strategy import prepare, running

    with running(**recipe.run.devices()):
        prepare(**recipe.run.numerics())
        evaluate(recipe, sure=sure)


def evaluate(recipe: Recipe, *, sure: float = 0.95) -> None:
    """Print the tables of all models of the workdir. sure: share of the answers by rank that should be right.

    Raises FileNotFoundError where the workdir has no model.
    """
    from deitlt_tf.data import decode, sources
    from deitlt_tf.evaluation import tables
    from deitlt_tf.evaluation.model_rows import Tables, add_model
    from deitlt_tf.evaluation.run import checked_model
    from deitlt_tf.models.interface import view_size
    from deitlt_tf.runs.data import identity, load_splits, note_other_data

    folder, max_pixels = recipe.run.folder, recipe.data.max_pixels
    splits = load_splits(**recipe.data.loading(), folder=folder)
    note_other_data(folder, **identity(splits, **recipe.data.loading()))
    counts = sources.class_counts(splits.train.labels, len(splits.train.class_names))
    printed = Tables()
    for file, row in ROWS.items():
        path = folder / f"{file}.keras"
        if not path.is_file():
            continue
        model = checked_model(path, class_names=splits.train.class_names)
        flag, view = ("eval_resize", recipe.student.view)
        if row == "teacher":
            flag, view = ("teacher_eval_resize", recipe.teacher.view)
        view_size(model, resize=view.eval_resize, flag=flag)
        add = functools.partial(
            add_model,
            printed,
            model,
            path,
            row,
            splits,
            counts,
            eval_resize=view.eval_resize,
            max_pixels=max_pixels,
            target=sure,
            five_crops=recipe.student.five_crops if row == "student" else 0,
        )
        decode.naming_bad_images(add, splits, max_pixels=max_pixels)
    if not printed.rows:
        raise FileNotFoundError(f"{folder} holds no finished model: neither student.keras nor teacher.keras.")
    tables.print_tables(printed.rows, counts)
    tables.print_by_rank(printed.by_rank, counts, differences=printed.differences)
    for name, by_threshold in printed.rollups.items():
        tables.print_rollup(name, by_threshold, counts)


def program() -> None:
    command_line.program(main, __doc__, from_workdir=True, takes=("sure",))


if __name__ == "__main__":
    program()
