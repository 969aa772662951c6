"""Make one table of what others publish: `python -m deitlt_tf.tabulate`.

May import data, runs (files) and the settings of recipes.
"""
