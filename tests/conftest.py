"""What all tests share: one thread pool size, quiet TensorFlow, golden numbers, deterministic operations."""

import functools
import json
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf import options

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
tf.config.experimental.enable_op_determinism()


@functools.cache  # one for all: the collectives of a process's second MirroredStrategy collide with the first's
def strategy_of(replicas: int) -> tf.distribute.Strategy:
    """The default strategy for one replica, a MirroredStrategy over logical CPUs for more."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """Arrays of tests/golden/NAME.npz, with `config` parsed; numbers of the reference implementation."""

    def __init__(self, name: str):
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as archive:
            self.arrays = {key: archive[key] for key in archive.files if key != "config"}
            self.config = json.loads(str(archive["config"])) if "config" in archive.files else {}

    def __getitem__(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def images(self, key: str) -> np.ndarray:
        """Stored as [..., C, H, W], returned as [..., H, W, C]."""
        return np.moveaxis(self.arrays[key], -3, -1)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}


@pytest.fixture
def golden():
    return Golden


@pytest.fixture
def golden_json():
    return lambda name: json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.fixture
def program(monkeypatch, capsys):
    """program(module, *arguments, **rules) -> (exit code, all that was printed), without a new process.

    rules: those of `options.program`, as the module's last line gives them.
    """

    def call(module, *arguments, **rules):
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
        code = 0
        try:
            options.program(module.main, module.__doc__, **rules)
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


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
