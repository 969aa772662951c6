"""The examples in docstrings run, and print what they say."""

import doctest
import importlib
import re

import pytest
from helpers import ROOT

PACKAGE = ROOT / "deitlt_tf"
MODULES = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for file in PACKAGE.rglob("*.py")
    if re.search(r"^\s*>>> ", file.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.attempted > 0, f"{name} has no example"
    assert results.failed == 0, f"{results.failed} examples of {name} print something else: see the captured output"
