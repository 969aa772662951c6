"""Download the images of a table: `python -m deitlt_tf.fetch`.

May import data, runs, the headers of inspect_data and the settings of recipes.
"""
