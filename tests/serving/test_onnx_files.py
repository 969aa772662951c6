"""ONNX files of three kinds, and the runner that answers a batch by parts."""

import numpy as np
import onnx
import pytest
from helpers import onnx_networks as networks

from deitlt_tf.models import interface
from deitlt_tf.serving import onnx_files, onnx_graph


def test_a_batch_answered_by_parts_is_the_batch(tmp_path):
    model = networks.shaken(networks.NETWORKS["deit"]())
    path = tmp_path / "student.onnx"
    onnx_files.write_float32(onnx_graph.build(model, heads="all"), path)
    by_parts, whole = (onnx_files.runner(path, threads=2, whole=whole) for whole in (False, True))
    for count in (0, 1, 4, 5, 23):
        images = networks.pixels(model, count)
        expected, outputs = whole(images), by_parts(images)
        assert outputs.keys() == expected.keys()
        for name, value in outputs.items():
            np.testing.assert_allclose(value, expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("network", ["vit", pytest.param("deit_stem", marks=pytest.mark.slow)])
def test_one_file_of_each_kind_and_eight_bits_for_transformers_alone(network, tmp_path):
    model = networks.shaken(networks.NETWORKS[network]())
    images = networks.pixels(model)
    graph = onnx_graph.build(model, heads="cls")
    expected = interface.heads(model(images.astype(np.float32)))["cls"].numpy()
    for kind, tolerance in (("float32", 1e-5), ("fp16", 0.01), ("int8", 0.1)):
        path = tmp_path / f"{kind}.onnx"
        onnx_files.WRITERS[kind](graph, path)
        onnx.checker.check_model(str(path), full_check=True)
        logits = onnx_files.runner(path, threads=1)(images)["logits_cls"]
        np.testing.assert_allclose(logits, expected, atol=tolerance * max(1, np.abs(expected).max()), err_msg=kind)
    convolutions = onnx_graph.build(networks.NETWORKS["resnet8_cosine"](), heads="cls")
    with pytest.raises(ValueError, match="int8 is for transformers"):
        onnx_files.WRITERS["int8"](convolutions, tmp_path / "resnet.onnx")
    assert not (tmp_path / "resnet.onnx").exists()
