"""Strategies over logical CPUs, one of each size in a process."""

import functools

import tensorflow as tf


@functools.cache  # one for all: the collectives of a process's second MirroredStrategy collide with the first's
def strategy_of(replicas: int) -> tf.distribute.Strategy:
    """The default strategy for one replica, a MirroredStrategy over logical CPUs for more."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
