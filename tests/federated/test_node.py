"""A node's own settings, and the sentences on what does not fit together."""

import time

import pytest
from helpers.federation import recipe_in, source_of

from deitlt_tf.federated import images, node
from deitlt_tf.runs.lock import locked


def test_flags_that_differ_are_named_from_the_servers_side():
    ours, theirs = {"federated_lr": "0.1", "seed": "0"}, {"federated_lr": "0.03", "seed": "0"}
    sentence = node.differing(ours, theirs, name="north")
    assert sentence == "client north has another recipe than the server: `federated_lr` is '0.03' there and '0.1' here."
    assert node.differing(ours, ours, name="north") == ""
    many = node.differing(dict.fromkeys("abcde", "1"), {}, name="north")
    assert many.endswith("and 2 more.") and "`a` is None there and '1' here" in many


def test_flags_of_the_data_and_of_the_folder_may_differ(tmp_path):
    ours = recipe_in(tmp_path, "--data_dir=x", "--test_fraction=0.5", "--decoded_mb=1").shared_flags()
    theirs = recipe_in(tmp_path / "other", "--data_dir=y", "--val_fraction=0.1").shared_flags()
    assert ours == theirs and {"federated_lr", "teacher_model", "seed"} <= ours.keys()
    assert ours != recipe_in(tmp_path, "--seed=1").shared_flags()


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (("a", "c"), "class 1 is 'c' there, 'b' here"),
        (("a",), "has 1 classes and client north has 2"),
        (("a", "b"), ""),
    ],
)
def test_the_first_class_that_differs_is_named(theirs, words):
    sentence = node.other_classes("north", ("a", "b"), "south", theirs)
    assert words in sentence and bool(sentence) == bool(words)


def test_a_greeting_is_a_name_classes_and_counts():
    own = images.Images("north", source_of((2, 0, 1), seed=0), None, None)
    assert node.greeting(own) == {"name": "north", "class_names": ["blue", "green", "red"], "counts": [2, 0, 1]}


def test_a_share_that_does_not_exist_is_named(tmp_path):
    recipe = recipe_in(tmp_path, "--data=digits_lt", "--federated_clients=2")
    with pytest.raises(ValueError, match="client third has no share: the shares are client00, client01"):
        node.load(node.Setting(recipe, "third", True))


def test_a_process_that_is_about_to_leave_the_folder_is_waited_for(tmp_path, monkeypatch):
    other = locked(tmp_path)
    other.__enter__()
    with pytest.raises(ValueError, match="is in use by process"), node.free(tmp_path, wait=0):
        pass
    monkeypatch.setattr(time, "sleep", lambda seconds: other.__exit__(None, None, None))
    with node.free(tmp_path, wait=60), pytest.raises(ValueError, match="is in use by process"), locked(tmp_path):
        pass
