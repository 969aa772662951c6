"""A new network starts from the weights of another one: what is taken, what is resized, what stays random."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.state_dicts import IMPORTED, deit_shapes, empty, pixels, random_like, resnet_shapes, tensors, tiny

from deitlt_tf import models
from deitlt_tf.interop import imports, pretrained, torch_weights
from deitlt_tf.models import resizing
from deitlt_tf.models.weights import state_dict
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.models import save_model
from deitlt_tf.training.networks import student_network

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_model_shows_its_activation_whatever_it_is(activation):
    assert pretrained.structure_of(tiny(activation=activation)) == {"activation": activation}


def test_the_same_network_is_taken_whole():
    state = random_like(tiny())
    assert pretrained.start_from(tiny(), state) == []
    weights = torch_weights.to_torch(tiny())
    assert all(np.array_equal(weights[name], value) for name, value in state.items())


def test_another_size_and_other_classes_resize_positions_and_leave_heads_random():
    target, state = tiny(image_size=24, num_classes=3), random_like(tiny())
    own = torch_weights.to_torch(target)
    notes = pretrained.start_from(target, {f"module.{name}": value for name, value in state.items()})
    assert notes == [
        "positions resized from 4 x 4 to 6 x 6 patches.",
        "head stays random: 3 classes here, 5 in the weights.",
        "head_dist stays random: 3 classes here, 5 in the weights.",
    ]
    weights = torch_weights.to_torch(target)
    resized = resizing.resize_position(state["pos_embed"], grid_from=4, grid_to=6, prefix=2)
    np.testing.assert_array_equal(weights["pos_embed"], resized)
    for name in weights.keys() - {"pos_embed"}:
        np.testing.assert_array_equal(weights[name], (own if name.startswith("head") else state)[name])


def test_dist_starts_as_cls_where_there_was_none():
    target, state = tiny(), random_like(tiny("vit_nano"))
    assert pretrained.start_from(target, state) == ["DIST starts as CLS: the weights have no DIST token."]
    weights = torch_weights.to_torch(target)
    np.testing.assert_array_equal(weights["dist_token"], state["cls_token"])
    np.testing.assert_array_equal(weights["pos_embed"][:, 1], state["pos_embed"][:, 0])
    np.testing.assert_array_equal(weights["pos_embed"][:, 2:], state["pos_embed"][:, 1:])
    logits = target(pixels())
    np.testing.assert_allclose(logits["cls"], logits["dist"], rtol=1e-4, atol=1e-5)


def test_a_plain_vit_leaves_dist_out():
    target, state = tiny("vit_nano"), random_like(tiny())
    assert pretrained.start_from(target, state) == ["the DIST token and its head are left out."]
    weights = torch_weights.to_torch(target)
    np.testing.assert_array_equal(weights["pos_embed"], np.delete(state["pos_embed"], 1, axis=1))
    np.testing.assert_array_equal(weights["head.weight"], state["head.weight"])


def test_weights_without_heads_will_do():
    state = {name: value for name, value in random_like(tiny("vit_nano")).items() if not name.startswith("head")}
    assert pretrained.start_from(tiny(), state)[1:] == [
        "head stays random: 5 classes here, 0 in the weights.",
        "head_dist stays random: 5 classes here, 0 in the weights.",
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (deit_shapes(16, depth=1, patch=4, grid=4), "channels: 8 in the student, 16 in the weights to start from"),
        (deit_shapes(8, depth=2, patch=4, grid=4), "blocks: 1 in the student, 2 in"),
        (deit_shapes(8, depth=1, patch=8, grid=4), "pixels a patch: 4 in the student, 8 in"),
        (resnet_shapes((3, 4, 6, 3)), "no Vision Transformer's: no pos_embed"),
    ],
)
def test_a_start_from_another_architecture_is_refused(source, message):
    before = torch_weights.to_torch(tiny())
    with pytest.raises(ValueError, match=message):
        pretrained.start_from(tiny(), empty(source))
    assert all(np.array_equal(before[name], value) for name, value in torch_weights.to_torch(tiny()).items())


def test_a_convolutional_stem_starts_from_its_like_alone():
    convolutional = tiny(stem="conv")
    state = {name: value + 1 for name, value in torch_weights.state_of(convolutional).items()}
    assert pretrained.start_from(convolutional, state) == []
    np.testing.assert_array_equal(convolutional.get_layer("patch_embed").proj.bias, state["patch_embed.proj.bias"])
    for student, source in ((tiny(stem="conv"), random_like(tiny())), (tiny(), state)):
        with pytest.raises(ValueError, match=r"convolutional stem .*: [20] in the student, [20] in the weights"):
            pretrained.start_from(student, source)
    with pytest.raises(ValueError, match="only students with --stem=patch can be written"):
        torch_weights.to_torch(convolutional)


def test_a_start_from_a_model_with_other_heads_is_refused():
    with pytest.raises(ValueError, match="attention heads: 2 in the student, 4 in the weights"):
        pretrained.start_from(tiny(), tiny(num_heads=4))


@pytest.mark.parametrize("kind", [pytest.param("keras", marks=pytest.mark.slow), "pth"])
def test_a_student_starts_from_a_file_of_either_kind(states, tmp_path, capsys, kind, request):
    path = tmp_path / f"student.{kind}"
    if kind == "pth":
        torch = request.getfixturevalue("torch")
        torch.save({"model": tensors(torch, states["student"])}, path)
    else:
        network = torch_weights.recognise(states["student"], num_heads=2)
        imports.save(torch_weights.build(network), path, class_names=None)
    sizes = [f"--{name}={value}" for name, value in IMPORTED.items() if name != "num_classes"]
    recipe = command_line.recipe_of(["train", "--model=deit_nano", f"--init={path}", *sizes])
    student = student_network(recipe, num_classes=3)
    for name, value in torch_weights.to_torch(student).items():
        np.testing.assert_array_equal(value, states["student"][name])
    assert capsys.readouterr().out == ""
    student_network(recipe, num_classes=4)
    assert capsys.readouterr().out.count("stays random") == 2
    with pytest.raises(ValueError, match=rf"--init={path}: blocks: 3 in the student, 1 in the weights"):
        student_network(recipe.changed(depth=3), num_classes=7)


# ---- a CNN -----------------------------------------------------------------------------------------------------------


def cnn(name: str = "resnet8", **options) -> keras.Model:
    return models.build(name, **{"num_classes": 5, "image_size": 8} | options)


def saved(network: keras.Model, path: Path) -> Path:
    save_model(network, path, class_names=tuple("abcde"[: network.output_shape[-1]]))
    return path


def test_a_cnn_takes_all_of_another_one(tmp_path):
    source, target = cnn(), cnn()
    pretrained.start_cnn_from(target, str(saved(source, tmp_path / "teacher.keras")))
    for a, b in zip(source.variables, target.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_cnn_of_other_classes_keeps_its_own_classifier(tmp_path):
    source, target = cnn(num_classes=3), cnn()
    before = {name: v.numpy() for name, v in state_dict(target).items()}
    pretrained.start_cnn_from(target, str(saved(source, tmp_path / "teacher.keras")))
    body = state_dict(source)
    for name, variable in state_dict(target).items():
        np.testing.assert_array_equal(variable, before[name] if name.startswith("fc.") else body[name])


def test_a_cnn_of_another_architecture_is_refused(tmp_path):
    path = saved(cnn("resnet20"), tmp_path / "teacher.keras")
    with pytest.raises(ValueError, match=r"teacher.keras \(resnet20\) is another network than resnet8: layer1\.1\."):
        pretrained.start_cnn_from(cnn(), str(path))


def test_cosines_are_scaled_once_and_other_logits_never():
    images = tf.cast(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)), tf.float32)
    cosine, linear = cnn(classifier="cosine"), cnn()
    cosines, logits = cosine(images), linear(images)
    for network in (cosine, cosine, linear):
        pretrained.scale_cosines(network, ldam=30.0)
    np.testing.assert_allclose(cosine(images), 30 * cosines, rtol=1e-5)
    np.testing.assert_array_equal(linear(images), logits)
