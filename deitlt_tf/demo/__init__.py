"""A page for trying a finished run in a browser: `python -m deitlt_tf.demo`."""
