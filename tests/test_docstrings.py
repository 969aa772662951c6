"""The examples in docstrings run, and print what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "deitlt_tf.evaluation.metrics",
    "deitlt_tf.losses",
    "deitlt_tf.mixing",
    "deitlt_tf.models",
    "deitlt_tf.serving.priors",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0, f"{name} has no example"
    assert results.failed == 0, f"{results.failed} examples of {name} print something else: see the captured output"
