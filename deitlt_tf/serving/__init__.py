"""A finished network in production: ONNX, LiteRT, SavedModel, class priors.

May import evaluation, runs, data, models, losses and the settings of recipes.
"""
