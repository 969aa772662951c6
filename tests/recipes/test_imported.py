"""What flags.cfg says of an imported network: what the weights show, and what a person has stated."""

import pytest

from deitlt_tf.recipes import imported
from deitlt_tf.recipes.command_line import recipe_of

STATISTICS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1)}


def recipe(*arguments: str):
    return recipe_of(["import_torch", *arguments])


def test_only_what_was_given_is_stated():
    assert imported.stated(recipe(), teacher=False) == imported.stated(recipe(), teacher=True) == {}
    given = recipe(
        "--model=deit_small", "--depth=3", "--mean=.1,.2,.3", "--teacher_std=1,1,1", "--teacher_image_size=64"
    )
    assert imported.stated(given, teacher=False) == {"model": "deit_small", "depth": 3, "mean": (0.1, 0.2, 0.3)}
    assert imported.stated(given, teacher=True) == {"image_size": 64, "std": (1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "arguments", "method"),
    [
        ("deit_tiny", [], "deit_lt"),
        ("deit_tiny", ["--method=deit"], "deit"),
        ("vit_tiny", ["--method=deit"], "vit"),  # one token tells what it is
    ],
)
def test_a_transformer_is_described_by_its_sizes(name, arguments, method):
    options = {"image_size": 32, "patch_size": 4, "embed_dim": 192, "num_classes": 3}
    flags = imported.flags_of(name, options, recipe=recipe(*arguments), **STATISTICS)
    assert flags == {
        "model": "deit_tiny", "method": method, "image_size": 32, "patch_size": 4, "depth": 0, "embed_dim": 192,
        "num_heads": 0, "stem": "patch", "mean": ["0.5", "0.4", "0.3"], "std": ["0.2", "0.2", "0.1"],
    }  # fmt: skip
    recipe(*arguments).changed(**flags)  # they are flags, with values of their types


@pytest.mark.parametrize(
    ("size", "given", "resize"), [(32, [], 0), (224, [], 256), (224, ["--teacher_eval_resize=230"], 230)]
)
def test_a_cnn_becomes_a_teacher(size, given, resize):
    options = {"image_size": size, "classifier": "linear", "num_classes": 3}
    settings = recipe("--train_list=train.txt", *given)
    flags = imported.flags_of("resnet32", options, recipe=settings, **STATISTICS)
    teacher = settings.changed(**flags).teacher
    assert (teacher.network.model, teacher.network.classifier) == ("resnet32", "linear")
    assert (teacher.view.image_size, teacher.view.eval_resize) == (size, resize)
    assert teacher.network.mean == STATISTICS["mean"] and teacher.network.std == STATISTICS["std"]
    assert settings.changed(**flags).data.name == "list"
