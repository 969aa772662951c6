"""New networks of a recipe: the student and the teacher. Their weights depend on the seed alone."""

import keras

from deitlt_tf import models
from deitlt_tf.interop import pretrained
from deitlt_tf.models import adapters
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.training import adapting


def student_network(recipe: Recipe, *, num_classes: int) -> keras.Model:
    """A new student; for the methods without a teacher, the plain ViT of the same size.

    Its weights are those of --init, if set, and then it has the structure that these show: a norm before the blocks,
    registers and so on. With quick and adapt it gets a cosine head, with adapt adapters too, and its other weights are
    frozen; without --init it is then the --backbone, with the weights of its package.
    Raises ValueError that names --init, if its weights do not fit the network.
    """
    keras.utils.set_random_seed(recipe.run.seed)
    settings = recipe.student.network
    tune = "head" if recipe.student.frozen else recipe.student.adaptation.tune
    if recipe.student.takes_backbone:
        network = adapting.backbone_network(recipe, num_classes=num_classes)
        adapters.freeze(network, tune=tune)
        return network
    weights = pretrained.starting_weights(settings.init) if settings.init else None
    structure = {"activation": settings.activation}
    structure |= {} if weights is None else pretrained.structure_of(weights)
    adapted = adapting.options(recipe, num_classes=num_classes) if recipe.student.pretrained else {}
    network = models.build(
        recipe.student.model,
        num_classes=num_classes,
        image_size=recipe.student.view.image_size,
        patch_size=settings.patch_size,
        stem=settings.stem,
        depth=settings.depth or None,
        embed_dim=settings.embed_dim or None,
        num_heads=settings.num_heads or None,
        drop_path=settings.drop_path,
        mean=settings.mean,
        std=settings.std,
        **structure,
        **adapted,
    )
    if weights is not None:
        try:
            notes = pretrained.start_from(network, weights)
        except ValueError as error:
            raise ValueError(f"--init={settings.init}: {error}") from error
        for note in notes:
            if not (recipe.student.pretrained and "stays random" in note):  # its head starts from class means or a file
                print(f"{settings.init}: {note}")
        if note := pretrained.pixels_note(structure, mean=settings.mean):
            print(f"{settings.init}: {note}")
    if recipe.student.pretrained:
        adapters.freeze(network, tune=tune)
    return network


def teacher_network(recipe: Recipe, *, num_classes: int) -> keras.Model:
    """A new teacher network, whose outputs are logits; its weights are those of --teacher_init, if set."""
    keras.utils.set_random_seed(recipe.run.seed)
    settings = recipe.teacher.network
    network = models.build(
        settings.model,
        num_classes=num_classes,
        image_size=recipe.teacher.view.image_size,
        classifier=settings.classifier,
        scale=recipe.teacher.objective.scale,
        mean=settings.mean,
        std=settings.std,
    )
    if settings.init:
        pretrained.start_cnn_from(network, settings.init)
    return network
