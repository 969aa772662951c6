"""The ONNX graph of a network: the same answers as Keras', standard operators only."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from helpers import onnx_networks as networks

from deitlt_tf import models
from deitlt_tf.evaluation import probes
from deitlt_tf.models import interface
from deitlt_tf.runs import finished
from deitlt_tf.serving import onnx_graph
from deitlt_tf.serving.served import answers


@pytest.mark.parametrize(
    "kind", ["deit", *(pytest.param(kind, marks=pytest.mark.slow) for kind in [*networks.NETWORKS][1:])]
)
def test_the_graph_answers_as_keras_does_in_standard_operators(kind):
    model = networks.shaken(networks.NETWORKS[kind]())
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
        images = networks.pixels(model, count)
        logits = model(images.astype(np.float32), training=False)
        expected = answers(logits, heads=heads, adjustment=adjustment)
        outputs = networks.run_in_onnx(file, images)
        assert outputs.keys() == expected.keys()
        for name, value in outputs.items():
            largest = np.abs(expected[name]).max()
            np.testing.assert_allclose(value, expected[name], atol=1e-5 * max(1, largest), err_msg=name)
        assert np.ptp(outputs["logits_cls"], axis=0).max() > 0.01 or count == 1


def test_only_the_head_that_is_asked_for_is_in_the_file():
    model = networks.shaken(networks.NETWORKS["deit"]())
    images = networks.pixels(model).astype(np.float32)
    expected = interface.heads(model(images, training=False))
    for heads in ("mean", "cls", "dist"):
        file = onnx_graph.build(model, heads=heads, input_type="float32")
        outputs = networks.run_in_onnx(file, images)
        assert outputs.keys() == {f"logits_{heads}", "probabilities"}
        np.testing.assert_allclose(outputs[f"logits_{heads}"], expected[heads], atol=1e-5)
        weights = {weight.name for weight in file.graph.initializer}
        assert ("head.weight" in weights, "head_dist.weight" in weights) == (heads != "dist", heads != "cls")


def test_a_layer_without_a_counterpart_is_named():
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Softmax(name="odd")(keras.layers.Flatten(name="flat")(images)))
    with pytest.raises(ValueError, match=r"no counterpart of layer 'flat' \(Flatten\)"):
        onnx_graph.build(model, heads="cls")


@pytest.mark.slow
def test_a_network_trained_in_bfloat16_is_exported_in_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = networks.shaken(networks.NETWORKS["deit"]())
    finally:
        keras.config.set_dtype_policy("float32")
    served = finished.in_float32(model)
    images = networks.pixels(model)
    expected = served(images.astype(np.float32), training=False)
    assert 1e-5 < np.abs(expected["cls"] - model(images.astype(np.float32), training=False)["cls"]).max() < 0.1
    outputs = networks.run_in_onnx(onnx_graph.build(served, heads="all"), images)
    np.testing.assert_allclose(outputs["logits_cls"], expected["cls"], atol=1e-5)


@pytest.mark.slow
def test_tf2onnx_makes_the_same_function(tmp_path):
    tf2onnx = pytest.importorskip("tf2onnx")
    model = networks.shaken(networks.NETWORKS["deit"]())
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8, name="images")]
    function = tf.function(
        lambda images: answers(model(tf.cast(images, tf.float32), training=False), heads="all"),
        input_signature=signature,
    )
    converted, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    own = onnx_graph.build(model, heads="all")
    assert len(own.graph.node) < 0.7 * len(converted.graph.node)
    images = networks.pixels(model)
    expected = networks.run_in_onnx(converted, images)
    for name, value in networks.run_in_onnx(own, images).items():
        np.testing.assert_allclose(value, expected[name], atol=2e-5)


@pytest.mark.slow
def test_what_pre_trained_networks_have_besides_costs_few_nodes():
    """Registers, LayerScale, LoRA: none. The norm before the blocks: one. QuickGELU: two fewer a block than GELU.

    Of an adapter a norm, two products, a ReLU and a sum, in each block.
    """
    count = {
        name: len(onnx_graph.build(networks.NETWORKS[name](), heads="cls").graph.node) for name in ("vit", "pretrained")
    }
    depth, cosine = networks.SMALL_VIT["depth"], 1
    assert count["pretrained"] == count["vit"] + 1 + depth * (5 - 2) + cosine


@pytest.mark.slow
def test_the_inference_graph_of_a_pre_trained_network_asks_for_no_shapes():
    model = networks.NETWORKS["pretrained"]()
    signature = tf.TensorSpec([None, 8, 8, 3], tf.float32)
    graph = tf.function(model, input_signature=[signature]).get_concrete_function().graph
    assert not {node.op for node in graph.as_graph_def().node} & {"Shape", "Erfc", "GatherV2", "Range"}


def with_large_weights(name: str, **size) -> keras.Model:
    """A Vision Transformer whose attention is far from uniform, because its random weights are large."""
    model = models.build(name, num_classes=3, image_size=12, patch_size=4, embed_dim=16, num_heads=2, **size)
    draw = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(draw.normal(scale=0.5, size=variable.shape))
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deit_nano", {"depth": 3}),
        ("vit_nano", {"depth": 1}),
        pytest.param("vit_nano", {"depth": 2} | networks.PRETRAINED, marks=pytest.mark.slow),
    ],
)
def test_rollout_in_the_graph_is_the_probes(name, options):
    model = with_large_weights(name, **options)
    images = np.random.default_rng(1).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    heads = "all" if name == "deit_nano" else "cls"
    file = onnx_graph.build(model, heads=heads, with_rollout=True)
    outputs = networks.run_in_onnx(file, images)
    batch = tf.data.Dataset.from_tensors((images.astype(np.float32), np.zeros(4), np.ones(4)))
    expected = probes.probe(model, batch).rollout
    assert outputs["rollout"].shape == expected.shape == (4, 2 if heads == "all" else 1, 3, 3)
    np.testing.assert_allclose(outputs["rollout"], expected, atol=1e-6)
    assert np.ptp(expected) > 0.01
    assert "rollout" not in {output.name for output in onnx_graph.build(model, heads=heads).graph.output}
