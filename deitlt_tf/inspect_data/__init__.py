"""Checks of a data set before days of training; `python -m deitlt_tf.inspect_data`."""
