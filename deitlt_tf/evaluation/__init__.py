"""Numbers of networks: accuracy by group, predictions, intervals, probes.

May import runs, data, models, devices, mixing.
"""
