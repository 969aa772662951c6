"""What a finished run has learnt, on one page; `python -m deitlt_tf.report`."""
