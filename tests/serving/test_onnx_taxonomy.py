"""Answers by rank in an ONNX file are those of the rules, for one image and for several, whatever the tree."""

import json

import numpy as np
import onnx
import pytest
import tensorflow as tf
from helpers import onnx_networks as networks

from deitlt_tf.data.taxonomy import from_dict, from_lineages
from deitlt_tf.evaluation import rollup
from deitlt_tf.serving import onnx_graph

LINEAGES = [("a", "A", "F"), ("b", "A", "F"), ("c", "B", "F"), ("d", "C", "G"), ("e", None, "G")]


@pytest.mark.parametrize("ranks", [3, 2])
def test_the_graph_answers_by_rank_as_the_rules_do(ranks):
    taxonomy = from_lineages([lineage[:ranks] for lineage in LINEAGES], ("species", "genus", "family")[:ranks])
    model = networks.shaken(networks.NETWORKS["deit"]())
    answered = set()
    for threshold in (0.3, 0.6, 0.95):
        file = onnx_graph.build(model, heads="all", taxonomy=taxonomy, threshold=threshold)
        onnx.checker.check_model(file, full_check=True)
        for count in (1, 5):
            outputs = networks.run_in_onnx(file, networks.pixels(model, count))
            expected = rollup.outputs(tf.constant(outputs["probabilities"]), taxonomy, threshold)
            for name, value in expected.items():
                assert outputs[name].shape == (count,) and outputs[name].dtype == value.numpy().dtype
                np.testing.assert_allclose(outputs[name], value, atol=1e-6, err_msg=name)
            assert rollup.disagreeing(outputs["probabilities"], outputs, taxonomy, threshold, tie=1e-6) == 0
            answered |= set(outputs["sure_rank"].tolist())
    assert len(answered) > 1


def test_without_a_threshold_nothing_is_added_and_names_of_any_marks_are_in_the_metadata():
    model = networks.NETWORKS["deit"]()
    taxonomy = from_lineages([(f'{x[0]}; "\t', f"{x[2]},\\'\u1e7d") for x in LINEAGES], ("s;\t", 'f,"'))
    metadata = {"taxonomy": json.dumps(taxonomy.to_dict())}
    plain = onnx_graph.build(model, heads="all", taxonomy=taxonomy, metadata=metadata)
    (entry,) = onnx.load_model_from_string(plain.SerializeToString()).metadata_props
    assert from_dict(json.loads(entry.value), place="metadata").to_dict() == taxonomy.to_dict()
    assert not {"least_risk", "sure_rank"} & {output.name for output in plain.graph.output}
