"""Exports of a finished network for production: ONNX, LiteRT, SavedModel; class priors.

May import evaluation, runs, data, models, losses and the settings of recipes.
"""
