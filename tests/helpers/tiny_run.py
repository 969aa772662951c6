"""A finished run without training, for tests of what comes after it: random weights, real files, in a second or two."""

from pathlib import Path

import numpy as np

from deitlt_tf.data.taxonomy import Taxonomy, from_lineages
from deitlt_tf.evaluation.run import Run
from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.report.numbers import opened
from deitlt_tf.runs.files import write_json
from deitlt_tf.runs.folder import claim
from deitlt_tf.runs.models import save_model
from deitlt_tf.training.networks import student_network, teacher_network
from helpers.programs import COLOURS, SMALL, picture

CLASS_NAMES = tuple(sorted(COLOURS))
CLASS_COUNTS = (12, 6, 3)
TAXONOMY = from_lineages([("blue", "cold"), ("green", "cold"), ("red", "warm")], ("class", "kind"))


def finished(root: Path, *arguments: str, teacher: bool = False, taxonomy: Taxonomy | None = None) -> Path:
    """ROOT/run, as `train` leaves it, of SMALL and `arguments`, and the data that it names in ROOT/images.

    Three classes, 12 / 6 / 3 training and 4 test images of several formats and sizes. The random weights are large, so
    that images differ in their answers.
    """
    images, folder = root / "images", root / "run"
    for split, counts in (("train", CLASS_COUNTS), ("test", (4, 4, 4))):
        for name, count in zip(CLASS_NAMES, counts, strict=True):
            (images / split / name).mkdir(parents=True)
            for i in range(count):
                suffix = ("png", "jpg", "webp", "bmp")[i % 4]
                picture(COLOURS[name], i, size=(9 + i, 11)).save(images / split / name / f"{i}.{suffix}")
    recipe = command_line.recipe_of(["tiny", *SMALL, f"--data_dir={images}", f"--workdir={folder}", *arguments])
    claim(folder, class_names=CLASS_NAMES, **recipe.identity())
    networks = {"student": student_network(recipe, num_classes=3)}
    if teacher:
        networks["teacher"] = teacher_network(recipe, num_classes=3)
    draw = np.random.default_rng(0)
    for name, network in networks.items():
        for variable in network.trainable_variables:
            if len(variable.shape) == 2:
                variable.assign(draw.normal(scale=0.5, size=variable.shape))
        save_model(network, folder / f"{name}.keras", class_names=CLASS_NAMES, taxonomy=taxonomy)
    write_json(folder / "results.json", {"class_counts": list(CLASS_COUNTS), "student.keras": "random"})
    return folder


def recipe_of(folder: Path, *arguments: str) -> Recipe:
    """The recipe of a finished run, under `arguments`, as a command reads it."""
    return command_line.recipe_of(["command", f"--workdir={folder}", *arguments], from_workdir=True)


def run_of(folder: Path, *arguments: str) -> Run:
    """A finished run, opened under `arguments`."""
    return opened(recipe_of(folder, *arguments))
