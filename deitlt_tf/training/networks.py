"""New networks of a recipe: the student and the teacher."""

from pathlib import Path
from types import SimpleNamespace

import keras

from deitlt_tf import models
from deitlt_tf.interop import pretrained
from deitlt_tf.recipes.recipe import floats


def student_network(flags: SimpleNamespace, *, num_classes: int) -> keras.Model:
    """A new student, or for --method=vit and vit_drw the plain ViT of its size. Its weights depend on --seed alone."""
    keras.utils.set_random_seed(flags.seed)
    name = flags.model.replace("deit_", "vit_") if flags.method.startswith("vit") else flags.model
    network = models.build(
        name,
        num_classes=num_classes,
        image_size=flags.image_size,
        patch_size=flags.patch_size,
        depth=flags.depth or None,
        embed_dim=flags.embed_dim or None,
        num_heads=flags.num_heads or None,
        drop_path=flags.drop_path,
        mean=floats(flags.mean, flag="mean"),
        std=floats(flags.std, flag="std"),
    )
    if flags.init:
        weights = pretrained.starting_weights(flags.init)
        try:
            notes = pretrained.start_from(network, weights)
        except ValueError as error:
            raise ValueError(f"--init={flags.init}: {error}") from error
        for note in notes:
            print(f"{flags.init}: {note}")
    return network


def teacher_network(flags: SimpleNamespace, *, num_classes: int) -> keras.Model:
    """A new teacher network. Its weights depend on --seed alone."""
    keras.utils.set_random_seed(flags.seed)
    network = models.build(
        flags.teacher_model,
        num_classes=num_classes,
        image_size=flags.teacher_image_size,
        classifier=flags.teacher_classifier,
        mean=floats(flags.teacher_mean, flag="teacher_mean"),
        std=floats(flags.teacher_std, flag="teacher_std"),
    )
    if flags.teacher_init:
        pretrained.start_cnn_from(network, Path(flags.teacher_init))
    return network
