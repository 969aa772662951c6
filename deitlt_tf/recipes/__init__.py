"""Flags, recipes and the typed settings made of them.

No TensorFlow and nothing else of ours, so that `--help` answers in 0.3 s.
"""
