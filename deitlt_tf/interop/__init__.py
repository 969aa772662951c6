"""Weights from and to other libraries.

May import models, runs, data, evaluation.
"""
