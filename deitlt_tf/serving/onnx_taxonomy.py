"""The answers of `evaluation.rollup.outputs` as nodes of an ONNX graph: least risk, and the finest rank that is sure.

The probabilities of the nodes of a rank are sums over those of the rank below, added at their parents
(ScatterElements), so the graph holds a number for each node and no matrix of classes x nodes.
"""

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, numpy_helper

from deitlt_tf.data.taxonomy import Taxonomy

if TYPE_CHECKING:
    from deitlt_tf.serving.onnx_graph import Graph

TYPES = {  # of the outputs, [batch] each
    "least_risk": TensorProto.INT64,
    "sure_rank": TensorProto.INT64,
    "sure_node": TensorProto.INT64,
    "sure_probability": TensorProto.FLOAT,
}


def add_outputs(graph: "Graph", probabilities: str, *, taxonomy: Taxonomy, threshold: float) -> dict[str, int]:
    """Adds the outputs of TYPES to the graph. probabilities: the tensor of the classes, [batch, C]. Returns TYPES."""
    nodes, parents = [probabilities], []
    for rank in range(1, len(taxonomy.ranks)):
        parents.append(_integers(graph, taxonomy.parents(rank - 1), f"taxonomy.parents.{rank}"))
        nodes.append(_sums(graph, nodes[-1], parents[-1], len(taxonomy.nodes[rank])))
    score = nodes[-1]
    for rank in range(len(nodes) - 2, -1, -1):
        score = graph.op("Add", nodes[rank], graph.op("Gather", score, parents[rank], axis=1))
    graph.op("ArgMax", score, name="least_risk", axis=1, keepdims=0)

    # From the coarsest rank to the finest: a finer rank replaces the answer where it is sure.
    confidence = [graph.op("ReduceMax", tensor, axes=[1], keepdims=0) for tensor in nodes]
    rank_so_far, node = _scalar(graph, len(nodes)), _scalar(graph, -1)
    probability = confidence[-1]
    for rank in range(len(nodes) - 1, -1, -1):
        reached = graph.op("GreaterOrEqual", confidence[rank], graph.number(threshold))
        best = graph.op("ArgMax", nodes[rank], axis=1, keepdims=0)
        rank_so_far = graph.op("Where", reached, _scalar(graph, rank), rank_so_far)
        node = graph.op("Where", reached, best, node)
        probability = graph.op("Where", reached, confidence[rank], probability)
    for name, tensor in (("sure_rank", rank_so_far), ("sure_node", node), ("sure_probability", probability)):
        graph.op("Identity", tensor, name=name)
    return TYPES


def _sums(graph: "Graph", below: str, parents: str, count: int) -> str:
    """[batch, count]: the sum over the nodes below of each node. below: their probabilities. parents: theirs."""
    shape = graph.op("Shape", below)
    batch = graph.op("Gather", shape, graph.integers(0), axis=0)
    zeros = graph.op("ConstantOfShape", graph.op("Concat", batch, graph.integers(count), axis=0))
    places = graph.op("Expand", parents, shape)
    return graph.op("ScatterElements", zeros, places, below, axis=1, reduction="add")


def _integers(graph: "Graph", values: np.ndarray, name: str) -> str:
    """An int64 vector with a name of its own."""
    graph.constants[name] = numpy_helper.from_array(values.astype(np.int64), name)
    return name


def _scalar(graph: "Graph", value: int) -> str:
    name = f"integer {value}"
    graph.constants[name] = numpy_helper.from_array(np.array(value, np.int64), name)
    return name
