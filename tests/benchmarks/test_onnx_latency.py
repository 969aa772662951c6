"""benchmarks/onnx_latency.py on a tiny network: every side is measured."""

import subprocess
import sys

import pytest
from helpers import ROOT


@pytest.mark.slow
def test_the_latency_benchmark_measures_every_side(tmp_path):
    script = ROOT / "benchmarks" / "onnx_latency.py"
    flags = ("--model=deit_nano", "--image_size=8", "--patch_size=4", "--classes=5", "--batches=1,5", "--seconds=0")
    done = subprocess.run([sys.executable, script, *flags, "--threads=2"], capture_output=True, text=True, check=True)
    assert done.stdout.count("deit_nano, 8 px, batch") == 2
    for side in ("float32, whole", "int8 ", "Keras"):
        assert done.stdout.count(f"\n{side}") == 2, done.stdout
