"""Model files: class names inside, nothing damaged is ever used, no code is ever run."""

import zipfile
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from helpers.files import NAMES, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.taxonomy import from_lineages
from deitlt_tf.runs import models
from deitlt_tf.runs.models import (
    load_model,
    load_weights,
    read_taxonomy,
    same_classes,
    save_model,
    save_weights,
    taxonomy_of_run,
)


def test_a_model_file_carries_its_class_names(tmp_path):
    model, path = tiny_model(), tmp_path / "model.keras"
    save_model(model, path, class_names=NAMES)
    again, names = load_model(path)
    assert names == NAMES
    for loaded in (again, keras.models.load_model(path)):
        for ours, theirs in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_model_file_of_somebody_else_has_no_class_names(tmp_path):
    tiny_model().save(tmp_path / "model.keras")
    assert load_model(tmp_path / "model.keras")[1] is None


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.keras"):
        load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "other zip"])
def test_a_damaged_model_is_named(tmp_path, damage):
    path = tmp_path / "model.keras"
    save_model(tiny_model(), path, class_names=NAMES)
    whole = path.read_bytes()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "not a model")
    path.write_bytes(
        {
            "empty": b"",
            "garbage": bytes(range(256)) * 4,
            "cut": whole[: len(whole) // 2],
            "other zip": (tmp_path / "other.zip").read_bytes(),
        }[damage]
    )
    with pytest.raises(ValueError, match=r"model\.keras is not a readable Keras model") as error:
        load_model(path)
    assert damage == "other zip" or "not a zip file" in str(error.value)


def test_a_model_that_would_run_code_is_refused(tmp_path):
    x = keras.Input([4])
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2)(x)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"model\.keras is not a readable Keras model"):
        load_model(tmp_path / "model.keras")


def test_weights_come_back(tmp_path):
    model, other = tiny_model(), tiny_model()
    save_weights(model, tmp_path / "best.npz")
    load_weights(other, tmp_path / "best.npz")
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_same_classes(tmp_path):
    check = {"path": tmp_path / "teacher.keras"}
    same_classes(NAMES, NAMES, num_outputs=3, **check)
    same_classes(None, NAMES, num_outputs=3, **check)
    with pytest.raises(ValueError, match=r"teacher\.keras has 4 classes, the data 3"):
        same_classes(None, NAMES, num_outputs=4, **check)
    with pytest.raises(ValueError, match=r"teacher\.keras .*class 1 is 'Hündin' there, 'a,b' here"):
        same_classes(NAMES, ("cat", "a,b", "Hündin"), num_outputs=3, **check)


# ---- the taxonomy ----------------------------------------------------------------------------------------------------


def taxonomy_of(names):
    return from_lineages([(name, "all") for name in names], ("class", "kind"))


def test_a_model_file_carries_its_taxonomy(tmp_path):
    path = tmp_path / "student.keras"
    save_model(tiny_model(), path, class_names=NAMES, taxonomy=taxonomy_of(NAMES))
    assert read_taxonomy(path).to_dict() == taxonomy_of(NAMES).to_dict() and load_model(path)[1] == NAMES
    assert taxonomy_of_run(tmp_path, NAMES).class_names == NAMES
    assert taxonomy_of_run(tmp_path, NAMES[::-1]) is None
    save_model(tiny_model(), path, class_names=NAMES)
    assert read_taxonomy(path) is None and read_taxonomy(tmp_path / "none.keras") is None
    path.write_bytes(b"no zip")
    assert read_taxonomy(path) is None and taxonomy_of_run(tmp_path, NAMES) is None


MARKS = ";,\t\"' \\[](){}<>&%`|/\u00a0\u0301a\u1e7d\U0001f426"


@given(st.lists(st.text(MARKS, min_size=1, max_size=6), min_size=2, max_size=4, unique=True))
@settings(deadline=None, max_examples=10)
def test_any_name_of_one_line_survives_a_model_file(tmp_path_factory, names):
    """The archive alone: Keras' own files in it hold no names."""
    path = tmp_path_factory.mktemp("names") / "student.keras"
    model = SimpleNamespace(save=lambda file: zipfile.ZipFile(file, "w").close())
    ranks = ("class", f"rank {names[0]}")
    taxonomy = from_lineages([(name, f"kind {name}") for name in names], ranks)
    save_model(model, path, class_names=tuple(names), taxonomy=taxonomy)
    read = read_taxonomy(path)
    assert (read.ranks, read.nodes) == (taxonomy.ranks, taxonomy.nodes) and read.class_names == tuple(names)


def test_a_taxonomy_that_is_damaged_large_or_of_another_order_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "student.keras"
    save_model(tiny_model(), path, class_names=NAMES, taxonomy=taxonomy_of(NAMES[::-1]))
    with pytest.raises(ValueError, match=r"student\.keras has the classes in another order than the data: class 0 is"):
        read_taxonomy(path)
    save_model(tiny_model(), path, class_names=NAMES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("taxonomy.json", '{"ranks": 7}')
    with pytest.raises(ValueError, match=r"student\.keras does not hold a taxonomy that can be read"):
        read_taxonomy(path)
    monkeypatch.setattr(models, "LARGEST_TAXONOMY", 5)
    with pytest.raises(ValueError, match=r"student\.keras holds a taxonomy of 12 bytes, more than 5"):
        read_taxonomy(path)
