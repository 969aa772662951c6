"""How a function lies in a TensorFlow graph: as one program, or as one node."""

import tensorflow as tf

# By XLA: one pass over memory instead of one for each operation. A call costs as much as a few passes over a small
# image: it pays for many operations, not for two. AutoGraph has nothing to convert in ours.
compiled = tf.function(jit_compile=True, autograph=False)

# Called and never inlined. An executor passes over every node of a branch that is not taken: let that be one.
one_node = tf.function(autograph=False, experimental_attributes={"_noinline": True})
