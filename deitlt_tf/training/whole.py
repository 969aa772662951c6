"""A whole run: the teacher, the student, the plain ViT next to them, and one table of all models."""

from deitlt_tf.data import sources
from deitlt_tf.devices.strategy import is_chief
from deitlt_tf.evaluation import tables
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.folder import claim, refuse_other
from deitlt_tf.training.student import adopt_teacher, teacher_file, train_student
from deitlt_tf.training.teacher import train_teacher

# Models of results.json, in the order of the table.
ROWS = {"vit": "ViT", "teacher": "teacher", "raw": "student", "ema": "EMA", "best": "best"}


def train(recipe: Recipe) -> None:
    """Trains the teacher, the student and, with --baseline, the plain ViT; prints tables and writes files."""
    folder = recipe.run.folder
    refuse_other(folder, **recipe.identity())  # before anything takes time or writes
    splits = load_splits(**recipe.data.loading(), folder=folder)
    claim_run(recipe, splits)
    class_names, teacher = splits.train.class_names, None
    if not recipe.student.plain:
        path = teacher_file(recipe.teacher.path) if recipe.teacher.path else train_teacher(recipe, splits)
        teacher = adopt_teacher(path, folder / "teacher.keras", class_names=class_names)
    results = train_student(recipe, splits, folder=folder, teacher=teacher)
    if recipe.student.baseline and teacher is not None:
        results["vit"] = train_baseline(recipe, splits)
        if is_chief():
            write_json(folder / "results.json", results)
    rows: dict[str, dict] = {}
    for name in filter(results.get, ROWS):
        rows |= tables.rows_of(ROWS[name], results[name])
    tables.print_tables(rows, sources.class_counts(splits.train.labels, len(class_names)))
    print(f"\n{folder}: " + ", ".join(path.name for path in sorted(folder.iterdir()) if path.is_file()))


def train_baseline(recipe: Recipe, splits: sources.Splits) -> dict:
    """Trains the plain ViT of the same recipe in WORKDIR/vit; returns the accuracies of its last weights."""
    folder = recipe.run.folder / "vit"
    plain = recipe.changed(method="vit", workdir=str(folder), baseline=False, teacher_labels="")
    claim_run(plain, splits)
    return train_student(plain, splits, folder=folder, teacher=None)["raw"]


def claim_run(recipe: Recipe, splits: sources.Splits) -> None:
    """Makes the workdir the folder of this recipe. Raises ValueError if it holds a run of another recipe."""
    if is_chief():
        claim(recipe.run.folder, class_names=splits.train.class_names, **recipe.identity())
