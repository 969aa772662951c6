"""New networks: of the sizes that the recipe names, decided by its seed, and started from weights where it says so."""

import numpy as np
import pytest
from helpers.programs import SMALL

from deitlt_tf.models import interface
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.runs.models import save_model
from deitlt_tf.training.networks import student_network, teacher_network

NETWORKS = {"student": student_network, "teacher": teacher_network}


def recipe(*arguments: str):
    return recipe_of(["test", *SMALL, *arguments])


def same(first, second) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights(), strict=True))


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_weights_depend_on_the_seed_alone(build):
    network = build(recipe(), num_classes=3)
    assert same(network, build(recipe("--epochs=9", "--teacher_lr=1"), num_classes=3))
    assert not same(network, build(recipe("--seed=1"), num_classes=3))


def test_a_student_has_the_sizes_of_the_recipe():
    student = student_network(recipe("--image_size=16", "--embed_dim=24"), num_classes=5)
    assert student.input_shape == (None, 16, 16, 3)
    assert {head: logits.shape for head, logits in student.output.items()} == {"cls": (None, 5), "dist": (None, 5)}
    assert student_network(recipe("--method=vit"), num_classes=5).output_shape == (None, 5)


def test_a_teacher_has_the_classifier_and_the_pixels_of_the_recipe():
    settings = recipe("--teacher_classifier=linear", "--teacher_mean=.1,.2,.3", "--teacher_std=.4,.5,.6")
    teacher = teacher_network(settings, num_classes=5)
    assert teacher.input_shape == (None, 8, 8, 3) and teacher.output_shape == (None, 5)
    normalize = next(layer for layer in teacher.layers if isinstance(layer, interface.Normalize))
    np.testing.assert_allclose(normalize.get_config()["mean"], (0.1, 0.2, 0.3))
    np.testing.assert_allclose(normalize.get_config()["std"], (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("arguments", "layer", "scale"),
    [
        ([], "fc", 30),
        (["--teacher_scale=20"], "fc", 20),
        (["--teacher_loss=ce", "--teacher_classifier=cosine"], "fc", 30),
        (["--teacher_loss=mdcs", "--teacher_model=mdcs_resnet8"], "expert1.fc", 30),
        (["--teacher_loss=ce"], "fc", None),
        (["--teacher_loss=balanced_softmax"], "fc", None),
        (["--teacher_loss=paco"], "fc", None),
        (["--teacher_loss=glmc"], "fc", None),
    ],
)
def test_a_teacher_has_the_classifier_that_its_loss_needs_and_its_outputs_are_logits(arguments, layer, scale):
    classifier = teacher_network(recipe(*arguments), num_classes=5).get_layer(layer)
    assert getattr(classifier, "scale", None) == scale


def test_a_student_starts_from_another_ones_weights(tmp_path, capsys):
    first = student_network(recipe("--seed=3"), num_classes=3)
    save_model(first, tmp_path / "first.keras", class_names=("a", "b", "c"))
    again = student_network(recipe(f"--init={tmp_path / 'first.keras'}"), num_classes=3)
    kernels = [[v for v in model.weights if v.path.endswith("kernel")] for model in (first, again)]
    assert all(np.array_equal(a, b) for a, b in zip(*kernels, strict=True))
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"init=.*first\.keras: "):
        student_network(recipe("--embed_dim=32", f"--init={tmp_path / 'first.keras'}"), num_classes=3)


def test_a_teacher_starts_from_another_ones_weights(tmp_path):
    first = teacher_network(recipe("--seed=3"), num_classes=3)
    save_model(first, tmp_path / "first.keras", class_names=("a", "b", "c"))
    again = teacher_network(recipe(f"--teacher_init={tmp_path / 'first.keras'}"), num_classes=3)
    for weight, other in zip(first.trainable_variables, again.trainable_variables, strict=True):
        np.testing.assert_array_equal(weight, other)
