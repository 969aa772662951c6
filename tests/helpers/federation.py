"""A federation of tiny clients with a two-layer network, which trains in a moment."""

from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from deitlt_tf.data.dataset import Source
from deitlt_tf.federated.images import Images
from deitlt_tf.federated.networks import Network
from deitlt_tf.models.resnet import BatchNorm
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.recipes.recipe import Recipe
from helpers.programs import COLOURS, picture

CLASSES = ("blue", "green", "red")
FLAGS = ("--federated_rounds=3", "--federated_epochs=1", "--federated_batch_size=4", "--teacher_image_size=8")
FLAGS += ("--teacher_padding=1", "--federated_head_norm=0.3", "--federated_sparsity=0.3")


def recipe_in(folder: Path, *flags: str) -> Recipe:
    return recipe_of(["federate", f"--workdir={folder}", *FLAGS, *flags])


def tiny_network(classes: int = 3) -> Network:
    """Pixels of 8 x 8 -> 4 features -> logits, with weights from seed 0."""
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, use_bias=False)(keras.layers.Rescaling(1 / 255)(images))
    x = keras.layers.ReLU()(BatchNorm()(x))
    features = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    return Network(keras.Model(images, keras.layers.Dense(classes, name="fc")(features.output)), features)


def source_of(counts: tuple[int, ...], *, seed: int) -> Source:
    """This many noisy pictures of each colour."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    pixels = rng.integers(0, 120, (len(labels), 8, 8, 3))
    pixels[np.arange(len(labels)), :, :, 2 - labels] += 100
    return Source(pixels.astype(np.uint8), labels, CLASSES)


def tiny_clients() -> list[Images]:
    """Two clients, of which the second one has no image of two classes; neither has validation images."""
    tests = source_of((3, 3, 3), seed=7)
    return [
        Images("north", source_of((6, 2, 1), seed=1), None, tests),
        Images("south", source_of((0, 5, 0), seed=2), None, source_of((0, 4, 0), seed=3)),
    ]


def write_clients(root: Path, clients: dict[str, dict[str, int]], *, tests: int = 2) -> str:
    """A folder of images for each client; returns the flag. clients: {client: {colour: training images}}."""
    for client, counts in clients.items():
        for label, count in counts.items():
            for split, seeds in (("train", range(count)), ("test", range(10, 10 + tests))):
                folder = root / client / split / label
                folder.mkdir(parents=True)
                for i in seeds:
                    picture(COLOURS[label], i).save(folder / f"{i}.png")
    return f"--federated_client_dirs={','.join(str(root / client) for client in clients)}"


def write_flag_files(root: Path, clients: Iterable[str], *, recipe: str, at: Path) -> None:
    """recipe.cfg, classes.txt, server.cfg and NAME.cfg of each client in `root`, for the images of `write_clients`.

    at: folder of the workdirs, which are at/server and at/NAME.
    """
    (root / "recipe.cfg").write_text(recipe)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (root / "server.cfg").write_text(f"--flagfile=recipe.cfg\n--workdir={at}/server\n")
    for name in clients:
        write_flag_file(root, name, at=at)


def write_flag_file(root: Path, name: str, *flags: str, at: Path, classes: str = "classes.txt") -> None:
    """NAME.cfg of one client. classes: file of the class list; "": without one."""
    lines = ["--flagfile=recipe.cfg", f"--workdir={at}/{name}", f"--data_dir={root / name}"]
    lines += [f"--class_names_file={root / classes}"] if classes else []
    (root / f"{name}.cfg").write_text("\n".join([*lines, *flags]) + "\n")
