"""What all tests share: one thread pool size, quiet TensorFlow, golden numbers, deterministic operations."""

import json
import os
import shutil
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest
import tensorflow as tf
from helpers import GOLDEN
from helpers.golden import Golden
from helpers.programs import write_images

from deitlt_tf import evaluate
from deitlt_tf.recipes import command_line

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.experimental.enable_op_determinism()


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def golden_json():
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture
def program(monkeypatch, capsys):
    """program(module, *arguments, **rules) -> (exit code, all that was printed), without a new process.

    rules: those of `command_line.program`, as the module's last line gives them.
    """

    def call(module, *arguments, **rules):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        code = 0
        try:
            command_line.program(module.main, module.__doc__, **rules)
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


@pytest.fixture
def run(program):
    """run(module, *arguments) -> (exit code, all that was printed)."""
    return lambda module, *arguments: program(module, *arguments, from_workdir=module is evaluate)


@pytest.fixture
def images(tmp_path):
    """`write_images` in a new folder."""
    return write_images(tmp_path / "images")


@pytest.fixture(scope="module")
def browser():
    """An installed Chromium, driven by playwright; the test is skipped where either is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield opened
        opened.close()
