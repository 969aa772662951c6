"""A finished run on one page, or several runs side by side: `python -m deitlt_tf.report`."""
