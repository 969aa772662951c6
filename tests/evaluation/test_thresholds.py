"""Thresholds of a run: kept for the weights and the taxonomy that they were chosen for, and for no others."""

import pytest

from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.evaluation import thresholds

TAXONOMY = from_lineages([("a", "A"), ("b", "A")], ("species", "genus"))


def write(folder, model="student", **chosen):
    thresholds.write(folder, model, chosen, target=0.9, taxonomy=TAXONOMY)


def test_a_threshold_comes_back_for_the_same_weights_and_taxonomy(tmp_path):
    for name in ("student", "teacher"):
        (tmp_path / f"{name}.keras").write_bytes(name.encode())
    write(tmp_path, mean=0.8, cls=None)
    write(tmp_path, "teacher", cls=0.7)
    assert thresholds.read(tmp_path, "student", "mean", taxonomy=TAXONOMY) == 0.8
    assert thresholds.read(tmp_path, "teacher", "cls", taxonomy=TAXONOMY) == 0.7
    with pytest.raises(ValueError, match=r"no threshold up to 0\.99 made 90 % of the answers of student \(cls\) right"):
        thresholds.read(tmp_path, "student", "cls", taxonomy=TAXONOMY)
    with pytest.raises(
        ValueError, match=r"no threshold was chosen for student_ema in .*: run python -m deitlt_tf\.eval"
    ):
        thresholds.read(tmp_path, "student_ema", "mean", taxonomy=TAXONOMY)
    other = from_lineages([("a", "A"), ("b", "B")], ("species", "genus"))
    with pytest.raises(ValueError, match="other weights or of another taxonomy than student"):
        thresholds.read(tmp_path, "student", "mean", taxonomy=other)
    (tmp_path / "student.keras").write_bytes(b"trained on")
    with pytest.raises(ValueError, match="other weights or of another taxonomy than student"):
        thresholds.read(tmp_path, "student", "mean", taxonomy=TAXONOMY)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "thresholds.json").write_text("{")
    with pytest.raises(ValueError, match=r"thresholds\.json cannot be read .*: delete it, and evaluate again"):
        thresholds.read(tmp_path, "student", "mean", taxonomy=TAXONOMY)
