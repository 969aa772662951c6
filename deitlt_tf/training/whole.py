"""A whole run: the teacher, the student, the plain ViT next to them, and one table of all models.

The method quick has a run of its own kind, see `training.quick`.
"""

import contextlib
import io

from deitlt_tf.data import sources
from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.evaluation import tables
from deitlt_tf.recipes.checks import check
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.data import identity, load_splits
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.folder import claim, has_begun, held, refuse_other
from deitlt_tf.training.job import check_batch
from deitlt_tf.training.networks import student_network
from deitlt_tf.training.quick import quick
from deitlt_tf.training.student import adopt_teacher, late_validation, teacher_file, train_student
from deitlt_tf.training.teacher import teacher_folder, train_teacher

# Models of results.json, in the order of the table.
ROWS = {"vit": "ViT", "teacher": "teacher", "raw": "student", "ema": "EMA", "best": "best", "five_crops": "five crops"}


def train(recipe: Recipe) -> None:
    """Trains the teacher, the student and, with --baseline, the plain ViT; prints tables and writes files.

    Everything that can be refused is refused before the teacher trains, the recipe even before the data are read.
    """
    if recipe.student.frozen:
        quick(recipe)
        return
    folder = recipe.run.folder
    check_recipe(recipe)
    with held(folder):
        splits = load_splits(**recipe.data.loading(), folder=folder)
        check_start(recipe, splits)
        claim_run(recipe, splits)
        if note := late_validation(recipe, splits):
            print(note)
        class_names, teacher = splits.train.class_names, None
        if not recipe.student.plain:
            path = train_teacher(recipe, splits) if recipe.trains_teacher else teacher_file(recipe.teacher.path)
            teacher = adopt_teacher(
                path,
                folder / "teacher.keras",
                class_names=class_names,
                eval_resize=recipe.teacher.view.eval_resize,
                image_size=recipe.teacher.view.image_size,
                scale=recipe.teacher.objective.scale,
            )
        results = train_student(recipe, splits, folder=folder, teacher=teacher)
        if recipe.student.baseline and teacher is not None:
            baseline = train_baseline(recipe, splits)
            results["vit"] = baseline["raw"]
            if "taxonomy" in results:
                results["taxonomy"]["models"]["vit"] = baseline["taxonomy"]["models"]["raw"]
            if is_chief():
                write_json(folder / "results.json", results)
    rows: dict[str, dict] = {}
    for name in filter(results.get, ROWS):
        rows |= tables.rows_of(ROWS[name], results[name])
    class_counts = sources.class_counts(splits.train.labels, len(class_names))
    tables.print_tables(rows, class_counts)
    tables.print_by_rank(tables.by_rank_rows(results, ROWS), class_counts)
    names = [path.name for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    print(f"\n{folder}: {', '.join(names)}")


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError for a folder of another recipe, and for mistakes in what has not begun to train yet."""
    refuse_other(recipe.run.folder, **recipe.identity())
    begun = False
    if recipe.trains_teacher:
        begun = has_begun(teacher_folder(recipe), role="teacher")
        refuse_other(teacher_folder(recipe), **recipe.teacher_identity())
    check(recipe, student=not has_begun(recipe.run.folder), teacher=recipe.trains_teacher and not begun)


def check_start(recipe: Recipe, splits: sources.Splits) -> None:
    """Raises ValueError for batches that do not fit the devices, and for --init weights that do not fit the student."""
    batch = recipe.student.batch
    check_batch(batch.size, parts=batch.accumulation, flag="batch_size")
    if recipe.trains_teacher:
        check_batch(recipe.teacher.batch.size, flag="teacher_batch_size")
    if recipe.student.network.init and not has_begun(recipe.run.folder):
        with contextlib.redirect_stdout(io.StringIO()):  # its notes are printed when the student begins
            student_network(recipe, num_classes=len(splits.train.class_names))


def train_baseline(recipe: Recipe, splits: sources.Splits) -> dict:
    """Trains the plain ViT of the same recipe in WORKDIR/vit; returns what `train_student` does."""
    folder = recipe.run.folder / "vit"
    plain = recipe.changed(method="vit", workdir=str(folder), baseline=False, teacher_labels="")
    with held(folder):
        claim_run(plain, splits)
        return train_student(plain, splits, folder=folder, teacher=None)


def claim_run(recipe: Recipe, splits: sources.Splits) -> None:
    """Makes the workdir the folder of this recipe. Raises ValueError if it holds a run of another recipe or data."""
    if is_chief():
        claim(recipe.run.folder, **identity(splits, **recipe.data.loading()), **recipe.identity())
