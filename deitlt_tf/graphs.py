"""How a function lies in a TensorFlow graph: as one program, or as one node."""

import tensorflow as tf

# Compiled by XLA: the whole function is one pass over memory, instead of one pass for each operation. A call costs as
# much as a few passes over a small image, so it pays for many operations and not for two. These functions have no
# Python control flow of tensors, so AutoGraph has nothing to convert.
compiled = tf.function(jit_compile=True, autograph=False)

# Called and never inlined. The executor visits every node of a branch that is not taken, so such a branch should be a
# single node.
one_node = tf.function(autograph=False, experimental_attributes={"_noinline": True})
