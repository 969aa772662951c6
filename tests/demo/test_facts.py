"""What the page knows of the network: as much as the run says, in JSON."""

import json

import numpy as np
import pytest

from deitlt_tf import models
from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.demo import facts
from deitlt_tf.runs.finished import Finished

SMALL = {"num_classes": 3, "image_size": 8}
VIT = SMALL | {"patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
COUNTS = np.array([3, 90, 30])


def known(model, counts) -> dict:
    network = Finished(model, ("a", "b", "c"), counts)
    numbers = facts.facts(network, run="first", weights="ema", eval_resize=10, max_pixels=99)
    return json.loads(json.dumps(numbers))


def test_a_student_with_counts_has_groups_and_three_heads():
    numbers = known(models.build("deit_nano", **VIT), COUNTS)
    assert numbers["run"] == "first" and numbers["model"].startswith("deit_nano, ") and "(ema)" in numbers["model"]
    assert numbers["heads"] == ["cls", "dist", "mean"] and numbers["class_names"] == ["a", "b", "c"]
    assert numbers["class_counts"] == COUNTS.tolist() and numbers["groups"] == ["tail", "head", "mid"]
    assert (numbers["image_size"], numbers["eval_resize"], numbers["max_pixels"]) == (8, 10, 99)
    assert len(numbers["notes"]) == 2 and "attention rollout" in numbers["notes"][1]


@pytest.mark.parametrize(
    ("name", "sizes", "words"), [("vit_nano", VIT, "attention rollout"), ("resnet8", SMALL, "no attention")]
)
def test_one_head_and_no_counts_are_said(name, sizes, words):
    numbers = known(models.build(name, **sizes), None)
    assert numbers["heads"] == ["cls"] and numbers["class_counts"] is numbers["groups"] is None
    text = " ".join(numbers["notes"])
    assert "one head" in text and "training images" in text and words in text


def test_equally_frequent_classes_have_no_group():
    numbers = known(models.build("vit_nano", **VIT), np.array([40, 50, 40]))
    assert numbers["groups"] == ["", "", ""]
    assert numbers["notes"][0].startswith("The classes are about equally frequent (40 to 50 images)")


def test_a_taxonomy_and_its_threshold_are_told():
    taxonomy = from_lineages([("a", "A"), ("b", "A"), ("c", "B")], ("species", "genus"))
    network = Finished(models.build("vit_nano", **VIT), ("a", "b", "c"), COUNTS, taxonomy)
    numbers = facts.facts(network, run="first", weights="ema", eval_resize=10, max_pixels=99, threshold=0.8)
    assert numbers["taxonomy"] == taxonomy.to_dict() and numbers["threshold"] == 0.8
    assert known(models.build("vit_nano", **VIT), COUNTS)["taxonomy"] is None
