"""Which processes train together: TF_CONFIG, or what SLURM says of a job step."""

import json
import os

import pytest

from deitlt_tf.devices import cluster
from deitlt_tf.devices.strategy import make_strategy


def slurm(monkeypatch, **variables):
    """SLURM's variables of task 1 of 3 on two nodes, and `variables`."""
    defaults = {"PROCID": "1", "STEP_NUM_TASKS": "3", "STEP_NODELIST": "n[9-10]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in (defaults | variables).items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_slurm_variables_become_a_cluster(monkeypatch):
    """Node 9 before node 10, as SLURM counts, where TensorFlow's resolver has n10 first; nothing asks for GPUs."""
    slurm(monkeypatch)
    monkeypatch.setenv("SLURMD_NODENAME", "n9")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config = cluster.of_slurm()
    assert config == {
        "cluster": {"worker": ["n9:8888", "n9:8889", "n10:8888"]},
        "task": {"type": "worker", "index": 1},
    }
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    cluster.check(json.dumps(config))
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert cluster.task() == "worker 1"
    slurm(monkeypatch, PROCID="2")
    with pytest.raises(ValueError, match="runs task 2 on n9 and not on n10"):
        cluster.of_slurm()


def test_without_a_cluster_it_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs TF_CONFIG, or a SLURM job step: SLURM_PROCID not found"):
        make_strategy("multi_worker")


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "worker",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": -1}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_cluster_is_refused(text):
    with pytest.raises(ValueError, match="TF_CONFIG has to be"):
        cluster.check(text)
