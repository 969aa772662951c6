"""A function as one program or as one node: what it computes stays, what its graph looks like does not."""

import tensorflow as tf

from deitlt_tf import graphs


def twice_and_one(x: tf.Tensor) -> tf.Tensor:
    return 2 * x + 1


def test_one_node_is_a_single_call_in_the_graph():
    node = graphs.one_node(twice_and_one)
    assert float(node(tf.constant(3.0))) == 7.0
    traced = tf.function(lambda x: node(x)).get_concrete_function(tf.TensorSpec([], tf.float32))
    assert float(traced(tf.constant(3.0))) == 7.0
    operations = [op.type for op in traced.graph.get_operations()]
    assert "Mul" not in operations and [name for name in operations if "PartitionedCall" in name]
    (inner,) = traced.graph.as_graph_def().library.function
    assert inner.attr["_noinline"].b


def test_compiled_is_one_program():
    program = graphs.compiled(twice_and_one)
    assert float(program(tf.constant(3.0))) == 7.0
    traced = tf.function(lambda x: program(x)).get_concrete_function(tf.TensorSpec([], tf.float32))
    (inner,) = traced.graph.as_graph_def().library.function
    assert inner.attr["_XlaMustCompile"].b
