"""Train the flat CNN teacher alone: a convolutional network with SAM over a long-tail loss.

    python -m deitlt_tf.train_teacher --flagfile=configs/cifar10_lt.cfg --workdir=runs/c10

takes the same recipes as `train` and reads their --teacher_* and data flags. It writes WORKDIR/teacher/teacher.keras,
which `train --workdir=runs/c10` and `train --teacher=runs/c10/teacher` use. After an interruption the same command goes
on from the last checkpoint.
"""

from deitlt_tf.recipes import checks, command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe) -> None:
    if not (recipe.run.workdir or recipe.teacher.workdir):
        raise ValueError("--workdir is missing: name the folder where the run is kept, e.g. --workdir=runs/first.")
    from deitlt_tf.devices.strategy import prepare, running
    from deitlt_tf.runs.data import load_splits
    from deitlt_tf.runs.folder import has_begun, refuse_other
    from deitlt_tf.training.teacher import teacher_folder, train_teacher

    folder = teacher_folder(recipe)
    with running(**recipe.run.devices()):
        prepare(**recipe.run.numerics())
        refuse_other(folder, **recipe.teacher_identity())
        checks.check(recipe, student=False, teacher=not has_begun(folder, role="teacher"))
        train_teacher(recipe, load_splits(**recipe.data.loading(), folder=folder))


def program() -> None:
    command_line.program(main, __doc__, checkpoints=True)


if __name__ == "__main__":
    program()
