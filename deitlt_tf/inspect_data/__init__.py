"""Check a data set before days of training: `python -m deitlt_tf.inspect_data`.

May import evaluation, runs, data, models, losses and the settings of recipes.
"""
