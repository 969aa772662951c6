"""Adapting: where the head starts, what a run trains and keeps, and that it goes on with the weights it began with."""

import json
import shutil

import keras
import numpy as np
import pytest
from helpers.efficientnets import skip_without_weights
from helpers.programs import SMALL, snapshot
from helpers.safetensors_files import write
from helpers.student_run import Killed, dying
from helpers.vit_layouts import state

from deitlt_tf import evaluate, models, train
from deitlt_tf.data.dataset import Source
from deitlt_tf.interop import pretrained
from deitlt_tf.models import vit
from deitlt_tf.recipes.checks import mistakes
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.models import load_model
from deitlt_tf.training import adapting, student, whole
from deitlt_tf.training.networks import student_network

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

# The sizes of helpers.vit_layouts, for images of 8 pixels.
FLAGS = (
    *SMALL, "--method=adapt", "--depth=2", "--drop_path=0", "--reweight_epoch=-1", "--logit_adjustment=1", "--mixup=0",
    "--cutmix=0", "--smoothing=0", "--lr=.05", "--ema_decay=0", "--eval_every=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A file of a tiny CLIP under the names of open_clip."""
    return write(tmp_path_factory.mktemp("weights") / "clip.safetensors", state("open_clip"))


def recipe(*arguments):
    return recipe_of(["train", *FLAGS, *map(str, arguments)])


# ---- the network -----------------------------------------------------------------------------------------------------


def test_the_network_has_the_structure_of_its_file_and_begins_as_the_backbone(clip, capsys):
    network = student_network(recipe(f"--init={clip}"), num_classes=3)
    assert "CLIP was trained with other pixel statistics: --mean=0.481455" in capsys.readouterr().out
    assert network.get_layer("norm_pre").epsilon == 1e-5 and network.layers[-1].scale == 25
    trained = {path for v in network.trainable_variables for path in v.path.split("/")[:-1]}
    assert trained == {"blocks.0", "blocks.1", "adapter", "head"}
    sizes = {"image_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path": 0}
    weights = pretrained.starting_weights(str(clip))
    backbone = models.build("vit_nano", num_classes=3, **sizes, **pretrained.structure_of(weights))
    pretrained.start_from(backbone, weights)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    tokens = [vit.with_tokens(model)(images)[1] for model in (network, backbone)]
    np.testing.assert_allclose(*tokens, atol=1e-5)


def test_a_file_says_nothing_of_its_activation(clip):
    network = student_network(
        recipe(f"--init={clip}", "--activation=quick_gelu", "--tune=lora", "--adapter_rank=3"), num_classes=3
    )
    block = network.get_layer("blocks.1")
    assert (block.activation, block.attn.lora.rank, block.adapter) == ("quick_gelu", 3, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init=none.pt"], "--init=none.pt: there is no such file"),
        (["--head_init=none.npy"], "--head_init=none.npy: there is no none.npy"),
    ],
)
def test_what_the_recipe_lacks_is_said_at_once(arguments, message):
    assert any(message in sentence for sentence in mistakes(recipe(*arguments)))


def test_weights_of_another_size_are_refused_by_name(clip):
    with pytest.raises(ValueError, match=r"--init=.*clip\.safetensors: channels: 24 in the student, 16 in the weights"):
        student_network(recipe(f"--init={clip}", "--embed_dim=24"), num_classes=3)


# ---- where the head starts -------------------------------------------------------------------------------------------


def test_class_means_are_the_means_of_the_features(monkeypatch):
    monkeypatch.setattr(adapting, "IMAGES_PER_CLASS", 3)
    images = keras.Input((4, 4, 3), dtype="float32")
    features = keras.layers.GlobalAveragePooling2D()(images)
    network = keras.Model(images, keras.layers.Dense(2, name="head")(features))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    source = Source(pixels, np.array([0, 1, 0, 0, 0, 1], np.int32), ("a", "b"))
    means = adapting.class_means(network, source, eval_resize=0, max_pixels=100)
    expected = [pixels[[0, 3, 4]].mean((0, 1, 2)), pixels[[1, 5]].mean((0, 1, 2))]  # of class a three, evenly spread
    np.testing.assert_allclose(means, expected, rtol=1e-5)


@pytest.fixture
def embeddings(tmp_path):
    """embeddings(rows, names) -> the file of an array, with the names beside it."""

    def call(rows: np.ndarray, names: str):
        np.save(tmp_path / "texts.npy", rows)
        (tmp_path / "texts.txt").write_text(names)
        return tmp_path / "texts.npy"

    return call


def test_embeddings_go_to_the_classes_of_their_names(embeddings):
    rows = np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]], np.float32)
    vectors = adapting.class_embeddings(embeddings(rows, "red\nother\nblue\n"), class_names=("blue", "red"))
    np.testing.assert_allclose(vectors, [[1, 0], [0.6, 0.8]])


@pytest.mark.parametrize(
    ("rows", "names", "message"),
    [
        (np.zeros((2, 3), np.float32), "blue\n", r"has the shape \(2, 3\) of float32, and .*texts\.txt has 1 names"),
        (np.zeros((2, 3), np.int64), "blue\nred\n", "it needs a row of floats for each name"),
        (np.zeros((2, 3), np.float32), "blue\ngreen\n", r"lacks the class 'red' \(1 in all\)"),
        (np.full((2, 3), np.nan, np.float32), "blue\nred\n", "numbers that are not finite"),
    ],
)
def test_embeddings_that_do_not_fit_are_named(embeddings, rows, names, message):
    with pytest.raises(ValueError, match=rf"head_init=.*texts\.npy.*{message}"):
        adapting.class_embeddings(embeddings(rows, names), class_names=("blue", "red"))


def test_a_file_of_embeddings_that_lies_or_is_a_pickle_is_refused(embeddings, tmp_path):
    path = embeddings(np.zeros((2, 3), np.float32), "blue\nred\n")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(2, 3), ", b"(2, 9999999999), "[:8]))
    for wrong in (content[:-4], content.replace(b"'shape': (2, 3), }  ", b"'shape': (2, 9**9), }")):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"texts\.npy is not an array of numbers"):
            adapting.class_embeddings(path, class_names=("blue", "red"))
    np.save(path, np.array([{"a": 1}, {}], object))
    with pytest.raises(ValueError, match=r"texts\.npy is not an array of numbers"):
        adapting.class_embeddings(path, class_names=("blue", "red"))
    (tmp_path / "texts.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*texts\.txt"):
        adapting.class_embeddings(path, class_names=("blue", "red"))


def test_text_embeddings_become_features_by_the_projection_of_clip(clip, embeddings):
    matrix = state("open_clip")["visual.proj"]  # [16, 10]
    settings = recipe(f"--init={clip}")
    projection = adapting.projection(settings, width=10, dim=16, path="texts.npy")
    np.testing.assert_array_equal(projection, matrix)
    with pytest.raises(
        ValueError, match=r"rows of 7 numbers: the network has 16 features and .* a projection \(16, 10\)"
    ):
        adapting.projection(settings, width=7, dim=16, path="texts.npy")


# ---- a run -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_trains_and_keeps_adapters_and_head_alone(images, clip, tmp_path):
    arguments = (f"--data_dir={images}", f"--workdir={tmp_path / 'run'}", f"--init={clip}")
    settings = recipe(*arguments, "--ema_decay=.5", "--clip_norm=1")
    run = student.StudentRun(
        settings, load_splits(folder=tmp_path, **settings.data.loading()), folder=tmp_path / "run", teacher=None
    )
    frozen = {v.path: v.numpy() for v in run.distiller.student.weights if not v.trainable}
    head = run.distiller.student.layers[-1].weight.numpy()
    np.testing.assert_allclose(np.linalg.norm(head, axis=0), 1, rtol=1e-5)
    optimizer = [v for v in run.distiller.optimizer.variables if v.name.endswith("momentum")]
    trained = sum(int(np.prod(v.shape)) for v in run.distiller.student.trainable_variables)
    assert trained == 2 * (16 * 5 + 2) + 16 * 3  # two adapters of rank 1, the head of three classes
    assert sum(int(np.prod(v.shape)) for v in optimizer) == trained
    student.fit(run.job())
    step, arrays, _ = Checkpoints(run.folder).restore(
        {f"{i:05d} {v.name}": tuple(v.shape) for i, v in enumerate(run.job().variables)}
    )
    assert step == run.steps and sum(x.size for x in arrays.values()) < 3 * trained + 10
    for variable, average in zip(run.distiller.student.weights, run.distiller.ema.weights, strict=True):
        if variable.path in frozen:
            np.testing.assert_array_equal(variable, frozen[variable.path])
            np.testing.assert_array_equal(average, frozen[variable.path])
    changed = [not np.array_equal(a, b) for a, b in run.distiller.averaged]
    assert all(changed)


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not_killed(images, clip, tmp_path, monkeypatch, run, capsys):
    whole_run, killed = (
        recipe(
            f"--data_dir={images}", f"--init={clip}", f"--workdir={tmp_path / name}", "--five_crops=2", "--ema_decay=.5"
        )
        for name in ("whole", "killed")
    )
    whole.train(whole_run)
    with monkeypatch.context() as patch:
        dying(patch, saved=2, killed=5)
        with pytest.raises(Killed):
            whole.train(killed.changed(checkpoint_seconds=0))
    (tmp_path / "killed" / adapting.HEAD).unlink()  # its checkpoint has the head
    whole.train(killed)
    assert snapshot(tmp_path / "killed") == snapshot(tmp_path / "whole")
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert {"raw", "ema", "five_crops"} <= results.keys()
    capsys.readouterr()
    code, printed = run(evaluate, f"--workdir={tmp_path / 'whole'}")
    assert code == 0 and "five crops" in printed and "student" in printed
    model, names = load_model(tmp_path / "whole" / "student.keras")
    assert names == ("blue", "green", "red") and model.output_shape == (None, 3)


@pytest.mark.slow
def test_a_run_goes_on_with_the_weights_it_began_with_or_not_at_all(images, clip, tmp_path, monkeypatch, run):
    init = shutil.copy(clip, tmp_path / "weights.safetensors")
    folder = tmp_path / "run"
    arguments = (*FLAGS, f"--data_dir={images}", f"--workdir={folder}", f"--init={init}")
    with monkeypatch.context() as patch:
        dying(patch, saved=2, killed=5)
        with pytest.raises(Killed):
            whole.train(recipe_of(["train", *arguments, "--checkpoint_seconds=0"]))
    weights = state("open_clip")
    write(init, weights | {"visual.ln_post.bias": weights["visual.ln_post.bias"] + 1})
    code, printed = run(train, *arguments)
    assert code != 0 and "began with other weights than those of --init=" in printed
    write(init, weights)
    assert run(train, *arguments)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tune", "trained"),
    [
        ("norm", {"gamma", "beta", "weight"}),  # weight: the head's
        ("all", {"gamma", "beta", "weight", "kernel", "moving_mean", "moving_variance"}),
    ],
)
def test_an_efficientnet_keeps_its_statistics_while_its_kernels_are_frozen(images, tmp_path, tune, trained):
    skip_without_weights("efficientnet_lite0")
    settings = recipe(f"--data_dir={images}", f"--workdir={tmp_path / 'run'}", f"--tune={tune}", "--image_size=32")
    splits = load_splits(folder=tmp_path, **settings.data.loading())
    run = student.StudentRun(settings, splits, folder=tmp_path / "run", teacher=None)
    network = run.distiller.student
    before = {v.path: v.numpy() for v in network.weights}
    assert {v.name for v in network.trainable_variables} == trained - {"moving_mean", "moving_variance"}
    centre = network.get_layer("centre").mean.numpy()
    assert centre.min() >= 0 and centre.max() > 0.1  # features behind a ReLU6
    student.fit(run.job())
    changed = {v.name for v in network.weights if not np.array_equal(v, before[v.path])}
    assert changed == trained
    if tune == "norm":  # so few steps do not bring the statistics to where the kernels are
        assert run.measure_all()["raw"]["shots"]["cls"]["overall"] > 50  # three colours


def test_an_efficientnet_has_no_adapters():
    sentences = [*mistakes(recipe("--backbone=efficientnet_lite1"))]
    assert any("--tune=adaptformer is for Vision Transformers: name the file" in x for x in sentences)
    assert not any("--tune" in x for x in mistakes(recipe("--tune=norm")))
    assert any("--backbone=resnet is unknown" in x for x in mistakes(recipe("--tune=norm", "--backbone=resnet")))
