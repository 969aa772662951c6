"""benchmarks/fusing.py and ensemble.py: what the rules say, that no image chooses for itself, teachers as one file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT

from deitlt_tf import models
from deitlt_tf.interop import pretrained
from deitlt_tf.runs.models import load_model, save_model

BENCHMARKS = ROOT / "benchmarks"
sys.path.append(str(BENCHMARKS))

import fusing  # noqa: E402

LOG_COUNTS = np.log([100.0, 10.0, 1.0]) - np.log(10)


def log_p(seed: int) -> np.ndarray:
    return tf.nn.log_softmax(np.random.default_rng(seed).normal(size=(50, 3))).numpy()


def test_rules_with_equal_weights_are_the_plain_mean_and_at_their_ends_one_head():
    cls, dist = log_p(0), log_p(1)
    mean = (cls + dist).argmax(-1)
    for rule, numbers in ((fusing.one_weight, (0.5,)), (fusing.logits_by_count, (0.0, 0.0))):
        np.testing.assert_array_equal(rule(cls, dist, LOG_COUNTS, *numbers).argmax(-1), mean)
    np.testing.assert_array_equal(fusing.one_weight(cls, dist, LOG_COUNTS, 0), cls)
    np.testing.assert_array_equal(fusing.one_weight(cls, dist, LOG_COUNTS, 1), dist)
    fused = fusing.probabilities_by_count(cls, dist, LOG_COUNTS, 0.0, 2.0)
    np.testing.assert_allclose(fused[:, 1], (np.exp(cls) + np.exp(dist))[:, 1] / 2)  # the class between
    np.testing.assert_allclose(fused[:, 0], np.exp(cls)[:, 0], atol=0.02)  # the frequent one: CLS, almost
    np.testing.assert_allclose(fused[:, 2], np.exp(dist)[:, 2], atol=0.02)


def test_dist_counts_more_the_rarer_the_class_for_positive_slopes_and_less_for_negative():
    assert (np.diff(fusing.weight_of(LOG_COUNTS, 0.5, 1.0)) > 0).all()
    assert (np.diff(fusing.weight_of(LOG_COUNTS, 0.5, -1.0)) < 0).all()


def test_halves_share_every_class():
    labels = np.random.default_rng(0).integers(0, 4, 101)
    half = fusing.halves(labels)
    for label in range(4):
        ours = half[labels == label]
        assert ours.sum() == -(-len(ours) // 2)


def join(files: list[str], out: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / "ensemble.py"), f"--teachers={','.join(files)}", f"--out={out}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=BENCHMARKS.parent)


@pytest.mark.slow
def test_teachers_as_one_answer_with_the_mean_of_their_probabilities(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.float32)
    files, answers = [], []
    for number, classifier in enumerate(["linear", "cosine"]):
        model = models.build("resnet8", num_classes=3, image_size=16, classifier=classifier)
        pretrained.scale_cosines(model, ldam=30.0)  # as training leaves it
        files.append(str(tmp_path / f"{number}.keras"))
        save_model(model, Path(files[-1]), class_names=("a", "b", "c"))
        answers.append(tf.nn.softmax(model(images)))
    out = tmp_path / "pair" / "teacher.keras"
    joined = join(files, out)
    assert joined.returncode == 0, joined.stderr
    pair, names = load_model(out)
    assert names == ("a", "b", "c")
    np.testing.assert_allclose(tf.nn.softmax(pair(images)), np.mean(answers, 0), rtol=1e-5)

    other = str(tmp_path / "other.keras")
    save_model(models.build("resnet8", num_classes=3, image_size=16), Path(other), class_names=("a", "b", "d"))
    failed = join([files[0], other], tmp_path / "x")
    assert failed.returncode == 1 and "other.keras does not name the same classes" in failed.stderr
    assert not (tmp_path / "x").exists()
