"""Train a Vision Transformer on long-tailed images with DeiT-LT: flat CNN teacher, dual-token student, table, files.

    python -m deitlt_tf.train --flagfile=configs/digits_lt.cfg
    python -m deitlt_tf.train --flagfile=configs/folder.cfg --data_dir=my_images --workdir=runs/first

The teacher is trained first (or taken with --teacher=PATH). Then the student is distilled from it and evaluated by
head / mid / tail for CLS, DIST and their mean. After an interruption the same command goes on from the last checkpoint.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe) -> None:
    if not recipe.run.workdir:
        raise ValueError("--workdir is missing: name the folder where the run is kept, e.g. --workdir=runs/first.")
    from deitlt_tf.devices.strategy import prepare, running
    from deitlt_tf.training import whole

    with running(**recipe.run.devices()):
        prepare(**recipe.run.numerics())
        whole.train(recipe)


def program() -> None:
    command_line.program(main, __doc__, checkpoints=True)


if __name__ == "__main__":
    program()
