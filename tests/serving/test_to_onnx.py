"""ONNX: the graph is the network's equal, of standard operators, and a file that is not its equal never gets a name."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import ROOT, tiny_run

# isort: split
from deitlt_tf.training.views import evaluation_batches

from deitlt_tf import models, to_onnx
from deitlt_tf.models import experts, interface, resnet
from deitlt_tf.recipes import command_line
from deitlt_tf.runs import finished
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.models import load_model, save_model
from deitlt_tf.serving.served import answers, load_served

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_files = pytest.importorskip("onnx_files")
onnx_graph = pytest.importorskip("deitlt_tf.onnx_graph")

SMALL_VIT = {"image_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def residual(network, **kwargs) -> keras.Model:
    images = keras.Input((16, 16, 3), name="images")
    return keras.Model(images, network(interface.Normalize(name="normalize")(images), num_classes=5, **kwargs))


NETWORKS = {
    "deit": partial(models.build, "deit_nano", num_classes=5, **SMALL_VIT),
    "vit": partial(models.build, "vit_nano", num_classes=5, **SMALL_VIT),
    "resnet8_cosine": partial(models.build, "resnet8", num_classes=5, image_size=16, classifier="cosine"),
    "basic": partial(residual, resnet.basic_resnet, blocks=(1, 1, 1, 1)),
    "resnext": partial(residual, resnet.resnet, blocks=(1, 1, 1, 1), groups=4, width_per_group=4),
    "mdcs": partial(residual, experts.mdcs_cifar_resnet, blocks=1),
}


def shaken(model: keras.Model, seed: int = 0) -> keras.Model:
    """No weight where it starts: biases, BatchNorm and its statistics matter, and images differ in their answers."""
    draw = np.random.default_rng(seed)
    for variable in model.variables:
        value = variable.numpy()
        if variable.path.endswith("moving_variance"):
            variable.assign(draw.uniform(0.5, 2, value.shape))
        else:
            variable.assign(value + draw.normal(0, 0.05, value.shape))
    return model


def pixels(model: keras.Model, count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *model.input_shape[1:]), dtype=np.uint8)


def run_in_onnx(file: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


@pytest.mark.parametrize("name", ["deit", *(pytest.param(name, marks=pytest.mark.slow) for name in list(NETWORKS)[1:])])
def test_the_graph_answers_as_keras_does_in_standard_operators(name):
    model = shaken(NETWORKS[name]())
    heads = "all" if isinstance(model.output, dict) else "cls"
    adjustment = np.arange(5, dtype=np.float32)
    file = onnx_graph.build(model, heads=heads, adjustment=adjustment)
    onnx.checker.check_model(file, full_check=True)
    assert {node.domain for node in file.graph.node} == {""}
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [("", 17)]
    for value in (*file.graph.input, *file.graph.output):
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch" and all(dim.dim_value > 0 for dim in rest)
    for count in (1, 5):
        images = pixels(model, count)
        logits = model(images.astype(np.float32), training=False)
        expected = answers(logits, heads=heads, adjustment=adjustment)
        found = run_in_onnx(file, images)
        assert found.keys() == expected.keys()
        for output, value in found.items():
            largest = np.abs(expected[output]).max()
            np.testing.assert_allclose(value, expected[output], atol=1e-5 * max(1, largest), err_msg=output)
        assert np.ptp(found["logits_cls"], axis=0).max() > 0.01 or count == 1


def test_only_the_head_that_is_asked_for_is_in_the_file():
    model = shaken(NETWORKS["deit"]())
    images = pixels(model).astype(np.float32)
    expected = interface.heads(model(images, training=False))
    for heads in ("mean", "cls", "dist"):
        file = onnx_graph.build(model, heads=heads, input_type="float32")
        found = run_in_onnx(file, images)
        assert found.keys() == {f"logits_{heads}", "probabilities"}
        np.testing.assert_allclose(found[f"logits_{heads}"], expected[heads], atol=1e-5)
        weights = {weight.name for weight in file.graph.initializer}
        assert ("head.weight" in weights, "head_dist.weight" in weights) == (heads != "dist", heads != "cls")


def test_a_batch_answered_by_parts_is_the_batch(tmp_path):
    model = shaken(NETWORKS["deit"]())
    path = tmp_path / "student.onnx"
    onnx_files.write_float32(onnx_graph.build(model, heads="all"), path)
    by_parts, whole = (onnx_files.runner(path, threads=2, whole=whole) for whole in (False, True))
    for count in (0, 1, 4, 5, 23):
        expected, found = whole(pixels(model, count)), by_parts(pixels(model, count))
        assert found.keys() == expected.keys()
        for name, value in found.items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_network_too_large_for_half_precision_is_refused(run, tiny, tmp_path):
    model, names = load_model(tiny / "student.keras")
    model.get_layer("blocks.0").fc1.kernel.assign(1e4 * model.get_layer("blocks.0").fc1.kernel)
    for name in ("flags.cfg", "results.json"):
        (tmp_path / name).write_text((tiny / name).read_text())
    save_model(model, tmp_path / "student.keras", class_names=names)
    before = sorted(tmp_path.iterdir())
    code, printed = run(f"--workdir={tmp_path}", "--check_images=0", "--fp16")
    assert code == 1
    assert "student.fp16.onnx: logits are not finite; this network does not fit into that precision" in printed
    assert sorted(tmp_path.iterdir()) == before


def test_a_layer_without_a_counterpart_is_named():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Softmax(name="odd")(keras.layers.Flatten(name="flat")(images)))
    with pytest.raises(ValueError, match=r"no counterpart of layer 'flat' \(Flatten\)"):
        onnx_graph.build(model, heads="cls")


@pytest.mark.slow
def test_a_network_trained_in_bfloat16_is_exported_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = shaken(NETWORKS["deit"]())
    finally:
        keras.config.set_dtype_policy("float32")
    served = finished.in_float32(model)
    images = pixels(model)
    expected = served(images.astype(np.float32), training=False)
    assert 1e-5 < np.abs(expected["cls"] - model(images.astype(np.float32), training=False)["cls"]).max() < 0.1
    found = run_in_onnx(onnx_graph.build(served, heads="all"), images)
    np.testing.assert_allclose(found["logits_cls"], expected["cls"], atol=1e-5)


# ---- the program


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.finished(tmp_path_factory.mktemp("finished"), teacher=True)


@pytest.fixture
def run(program):
    """run(*arguments) -> (exit code, all that was printed)."""
    return partial(program, to_onnx, from_workdir=True, takes=to_onnx.TAKES)


def evaluated(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The test images as `evaluate` shows them, and the student's logits for them."""
    flags = command_line.parse(["evaluate", f"--workdir={folder}"], from_workdir=True)
    batches = evaluation_batches(load_splits(flags, folder=folder).test, flags, batch=12)
    ((images, _, _),) = batches.as_numpy_iterator()
    model, _ = load_model(folder / "student.keras")
    return images, {name: z.numpy() for name, z in interface.heads(model(images.astype(np.float32))).items()}


def with_weights_in_half_precision(folder: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The student's logits, computed in float32, where each weight is the float16 next to it."""
    model, _ = load_model(folder / "student.keras")
    model.set_weights([weight.astype(np.float16).astype(np.float32) for weight in model.get_weights()])
    return {name: z.numpy() for name, z in interface.heads(model(images.astype(np.float32))).items()}


def spread(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def test_a_run_as_files_of_three_kinds(run, tiny, tmp_path):
    out = tmp_path / "new" / "student.onnx"
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--quantize=int8", "--fp16")
    assert code == 0, printed
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "student.fp16.onnx", "student.int8.onnx", "student.onnx",
    ]  # fmt: skip
    for text in ("float32: logits within", "0 of 36 predictions differ", "mean, int8", "paper: head", "ms at 32"):
        assert text in printed
    images, expected = evaluated(tiny)
    rounded = with_weights_in_half_precision(tiny, images)
    for suffix in (".onnx", ".fp16.onnx", ".int8.onnx"):
        found = onnx_files.runner(out.with_suffix(suffix))(images)
        for head, z in expected.items():
            error = found[f"logits_{head}"] - z
            if suffix == ".fp16.onnx":
                # Each product has its weights rounded, its other factor, and its result: errors of one size, which add
                # up to about twice that of the weights alone (1.5 to 2.5 measured, here and on a trained network).
                assert 0 < spread(error) < 4 * spread(rounded[head] - z), head
            else:
                tolerance = {".onnx": 1e-5, ".int8.onnx": 0.1}[suffix]
                assert np.abs(error).max() < tolerance * max(1, np.abs(z).max()), (suffix, head)
                assert suffix == ".onnx" or np.any(error)
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(out).metadata_props}
    assert metadata["class_names"] == list(tiny_run.CLASS_NAMES)
    assert metadata["class_counts"] == list(tiny_run.CLASS_COUNTS)
    assert (metadata["image_size"], metadata["eval_resize"], metadata["heads"]) == (8, 0, "all")


def test_a_file_that_is_not_keras_equal_is_not_left_and_the_old_one_stays(run, tiny, tmp_path, monkeypatch):
    def damaged(model, path):
        (weight,) = (w for w in model.graph.initializer if w.name == "head.bias")
        weight.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) + np.float32(0.01), weight.name)
        )
        onnx_files.write_float32(model, path)

    out = tmp_path / "student.onnx"
    out.write_text("the old one")
    monkeypatch.setitem(onnx_files.WRITERS, "float32", damaged)
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--check_images=0", "--fp16")
    assert code == 1
    assert "a logit is 1.0e-02 off Keras', more than 1e-04" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["student.onnx"]
    assert out.read_text() == "the old one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=ema"], "student_ema.keras: this run has no such finished model"),
        (["--out=student.tflite"], "--out=student.tflite: the name of the file has to end in .onnx."),
        (["--weights=teacher", "--heads=dist"], "has one head; choose --heads=all or cls."),
        (["--weights=teacher", "--prior=uniform"], "--prior is for the student"),
        (["--prior=nowhere.txt"], "--prior=nowhere.txt: neither uniform nor training"),
        (["--weights=teacher", "--quantize=int8", "--check_images=0"], "--quantize=int8 is for transformers"),
        (["--data_dir=/nonexistent"], "/nonexistent"),
        (["--top_k=3"], "--top_k"),
    ],
)
def test_mistakes_are_told_in_one_sentence_and_leave_no_file(run, tiny, arguments, message):
    before = sorted(tiny.rglob("*"))
    code, printed = run(f"--workdir={tiny}", *arguments)
    assert code == 1
    assert "Traceback" not in printed
    assert message in printed.splitlines()[-1]
    assert sorted(tiny.rglob("*")) == before


@pytest.mark.slow
def test_other_classes_than_the_datas_are_refused(run, tiny, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    model, _ = load_model(tiny / "student.keras")
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "flags.cfg").write_text((tiny / "flags.cfg").read_text())
    save_model(model, folder / "student.keras", class_names=("red", "green", "blue"))
    code, printed = run(f"--workdir={folder}")
    assert code == 1
    assert "class 0 is 'red' there, 'blue' here" in printed


@pytest.mark.slow
def test_a_teacher_and_random_pixels(run, tiny, tmp_path):
    out = tmp_path / "teacher.onnx"
    code, printed = run(f"--workdir={tiny}", f"--out={out}", "--weights=teacher", "--fp16", "--check_images=0")
    assert code == 0, printed
    assert "of 64 predictions differ" in printed and "top-1" not in printed
    assert [output.name for output in onnx.load(out).graph.output] == ["logits_cls", "probabilities"]


@pytest.mark.slow
def test_prior_moves_the_mean_and_nothing_else(run, tiny, tmp_path):
    found = []
    images, _ = evaluated(tiny)
    for prior in ("", "uniform"):
        out = tmp_path / f"prior_{prior}.onnx"
        code, printed = run(f"--workdir={tiny}", f"--out={out}", f"--prior={prior}", "--check_images=3")
        assert code == 0, printed
        found.append(onnx_files.runner(out)(images))
    flags = command_line.parse(["x", f"--workdir={tiny}", "--prior=uniform"], from_workdir=True)
    moved = found[1]["logits_mean"] - found[0]["logits_mean"]
    np.testing.assert_allclose(moved, np.tile(load_served(flags).adjustment, (12, 1)), atol=1e-5)
    assert np.ptp(moved) > 0.1
    for head in ("cls", "dist"):
        np.testing.assert_array_equal(found[0][f"logits_{head}"], found[1][f"logits_{head}"])


@pytest.mark.slow
def test_tf2onnx_makes_the_same_function(tmp_path):
    tf2onnx = pytest.importorskip("tf2onnx")
    import tensorflow as tf

    model = shaken(NETWORKS["deit"]())
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")]
    function = tf.function(
        lambda images: answers(model(tf.cast(images, tf.float32), training=False), heads="all"),
        input_signature=signature,
    )
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    own = onnx_graph.build(model, heads="all")
    assert len(own.graph.node) < 0.7 * len(converted.graph.node)
    images = pixels(model)
    expected = run_in_onnx(converted, images)
    for name, value in run_in_onnx(own, images).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-5)


@pytest.mark.slow
def test_the_latency_benchmark_measures_every_side(tmp_path):
    script = ROOT / "benchmarks" / "onnx_latency.py"
    flags = ("--model=deit_nano", "--image_size=8", "--patch_size=4", "--classes=5", "--batches=1,5", "--seconds=0")
    done = subprocess.run([sys.executable, script, *flags, "--threads=2"], capture_output=True, text=True, check=True)
    assert done.stdout.count("deit_nano, 8 px, batch") == 2
    for side in ("float32, whole", "int8 ", "Keras"):
        assert done.stdout.count(f"\n{side}") == 2, done.stdout
