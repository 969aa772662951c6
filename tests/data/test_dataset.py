"""Source, Splits, choosing images: CIFAR-LT takes the official ones; a held-out part is chosen by name and seed."""

import functools
import json
import unicodedata

import numpy as np
import pytest
from helpers import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from deitlt_tf.data import sources
from deitlt_tf.data.dataset import (
    Source,
    Splits,
    class_counts,
    image_names,
    long_tail_counts,
    names_below,
    require_class_names,
    split_off,
    subsample,
    take,
)


def pixels(labels: list[int], num_classes: int) -> Source:
    images = np.zeros([len(labels), 1, 1, 3], np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return Source(images, np.array(labels, np.int32), tuple(f"c{i}" for i in range(num_classes)))


# ---- Source ----------------------------------------------------------------------------------------------------------


def test_source_kinds_names_and_take():
    paths = Source(np.array(["a.jpg", "b.jpg"], object), np.array([0, 1], np.int32), ("x", "y"))
    encoded = Source(np.array([b"1", b"2"], object), np.array([0, 1], np.int32), ("x", "y"))
    assert [s.kind for s in (paths, encoded, pixels([0, 1], 2))] == ["paths", "encoded", "pixels"]
    assert image_names(paths) == ["a.jpg", "b.jpg"]
    assert image_names(encoded) == ["image 0", "image 1"]
    taken = take(pixels([0, 1, 1], 2), np.array([2, 0]))
    assert len(taken) == 2 and taken.labels.tolist() == [1, 0] and taken.images[:, 0, 0, 0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros([2, 4, 4, 3], np.float32), np.zeros(2, np.int32)),
        (np.zeros([2, 4, 4], np.uint8), np.zeros(2, np.int32)),
        (np.array([1, 2], object), np.zeros(2, np.int32)),
        (np.array(["a"], object), np.zeros(2, np.int32)),
        (np.array(["a", "b"], object), np.zeros(2, np.int64)),
    ],
)
def test_source_refuses_other_arrays(images, labels):
    with pytest.raises(ValueError, match="must be"):
        Source(images, labels, ("x", "y"))


def test_splits_share_class_names():
    with pytest.raises(ValueError, match="same class names"):
        Splits(pixels([0, 1], 2), None, pixels([0, 1], 3))


def test_class_counts_do_not_grow_with_labels_times_classes():
    class Watched(np.ndarray):
        touched = 0

        def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
            Watched.touched += self.size
            return getattr(ufunc, method)(*(np.asarray(x) for x in inputs), **kwargs)

    labels = np.random.RandomState(0).randint(0, 8142, 437_513).astype(np.int32)
    counts = class_counts(labels.view(Watched), 8142)
    assert counts.dtype == np.int64 and counts.shape == (8142,) and counts.sum() == 437_513
    assert counts[17] == (labels == 17).sum()
    assert Watched.touched <= 4 * len(labels)  # a comparison per class would touch 8142 times as many
    (labels[:10].view(Watched) == 3).sum()
    assert Watched.touched > 0  # such a comparison would have been seen


def test_class_counts_keep_empty_classes_and_refuse_unknown_labels():
    assert class_counts(np.array([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]
    with pytest.raises(ValueError, match=r"label 4 is outside 0\.\.3"):
        class_counts(np.array([0, 4]), 4)


# ---- imbalance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "entry"), json.loads((GOLDEN / "class_balance.json").read_text()).items())
def test_profiles_equal_the_official_ones(key, entry):
    classes, n_max, kind, factor, _ = key.split("/")
    full = np.full(int(classes), int(n_max))
    counts = long_tail_counts(full, imbalance=round(1 / float(factor)), imbalance_type=kind)
    assert counts.tolist() == entry["counts"]


def test_subsample_picks_the_official_images_without_touching_numpys_global_state():
    golden = np.load(GOLDEN / "lt_subset.npz")
    before = np.random.get_state()[1].tolist()
    picked = subsample(golden["labels"], golden["counts"], seed=0)
    assert picked.tolist() == golden["selected"].tolist()
    assert np.random.get_state()[1].tolist() == before
    assert subsample(golden["labels"], golden["counts"], seed=1).tolist() != picked.tolist()


@given(st.lists(st.integers(1, 300), min_size=2, max_size=20), st.floats(1, 500), st.sampled_from(["exp", "step"]))
def test_imbalance_never_adds_images_nor_empties_a_class(counts, imbalance, kind):
    kept = long_tail_counts(np.array(counts), imbalance=imbalance, imbalance_type=kind)
    assert (kept <= counts).all() and (kept >= 1).all()
    labels = np.repeat(np.arange(len(counts)), counts)
    picked = subsample(labels, kept, seed=3)
    assert len(set(picked.tolist())) == len(picked)
    assert np.bincount(labels[picked], minlength=len(counts)).tolist() == kept.tolist()


@given(st.integers(2, 200), st.integers(1, 6000), st.floats(1, 500))
def test_exponential_profile_of_a_balanced_set_falls_from_n_max_to_n_max_by_rho(classes, n_max, imbalance):
    kept = long_tail_counts(np.full(classes, n_max), imbalance=imbalance, imbalance_type="exp")
    assert kept[0] == n_max and (np.diff(kept) <= 0).all()
    assert kept[-1] == max(1, int(n_max * (1 / imbalance)))


def test_imbalance_settings_are_checked():
    with pytest.raises(ValueError, match=r"imbalance=0\.5 must be at least 1"):
        sources.load("digits_lt", imbalance=0.5)
    with pytest.raises(ValueError, match="imbalance_type=linear is unknown: choose exp or step"):
        sources.load("digits_lt", imbalance=2, imbalance_type="linear")


# ---- splitting -------------------------------------------------------------------------------------------------------


def named(counts: dict[str, int], *, root: str = "/data") -> Source:
    """Paths root/CLASS/NUMBER.jpg, as many of each class."""
    names = [f"{name}/{i}.jpg" for name, count in counts.items() for i in range(count)]
    paths = [f"{root}/{name}" for name in names]
    labels = np.repeat(np.arange(len(counts)), [*counts.values()]).astype(np.int32)
    return Source(np.array(paths, object), labels, tuple(counts), names_below(root, paths))


def test_split_off_is_seeded_takes_from_every_class_and_leaves_single_images_alone():
    source = pixels([0] * 50 + [1] * 20 + [2] * 5 + [3], 4)
    rest, part = split_off(source, 0.2, seed=0, argument="test_fraction")
    held_out = class_counts(part.labels, 4)
    assert held_out[3] == 0 and (held_out[:3] >= 1).all() and (class_counts(rest.labels, 4) >= 1).all()
    together = np.concatenate([rest.images, part.images])[:, 0, 0, 0]
    assert sorted(together.tolist()) == list(range(76))
    again = split_off(source, 0.2, seed=0, argument="test_fraction")[1]
    other = split_off(source, 0.2, seed=1, argument="test_fraction")[1]
    assert (again.images == part.images).all() and not np.array_equal(other.images, part.images)


sizes = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1).filter(
    lambda counts: max(counts.values()) > 1
)


@given(sizes, st.data(), st.floats(0.05, 0.95), st.integers(0, 5))
def test_no_image_changes_sides_when_others_come(counts, data, fraction, seed):
    more = {name: data.draw(st.integers(0, 60)) for name in [*counts, "new"]}
    grown = {name: counts.get(name, 0) + more[name] for name in more if counts.get(name, 0) + more[name]}
    split = functools.partial(split_off, fraction=fraction, seed=seed, argument="test_fraction")
    before, after = split(named(counts)), split(named(grown, root="/elsewhere/moved"))
    sides = [{name: side for side in (0, 1) for name in parts[side].names} for parts in (before, after)]
    for name, count in counts.items():
        of_class = [image for image in sides[0] if image.startswith(f"{name}/")]
        assert len(of_class) == count and {sides[0][image] for image in of_class} == ({0, 1} if count > 1 else {0})
        moved = [image for image in of_class if sides[0][image] != sides[1][image]]
        # Only the image that a small class gave, or kept, for want of another one.
        assert len(moved) <= 1
        if count * min(fraction, 1 - fraction) > 15:
            assert not moved


def test_shares_are_about_the_fraction_and_a_second_split_takes_its_own_share():
    source = named({f"c{i}": 500 for i in range(8)})
    for fraction in (0.02, 0.2, 0.7):
        rest, part = split_off(source, fraction, seed=1, argument="test_fraction")
        assert len(part) == pytest.approx(4000 * fraction, abs=4 * np.sqrt(4000 * fraction * (1 - fraction)))
        _, second = split_off(rest, fraction, seed=1, argument="val_fraction")
        assert len(second) == pytest.approx(len(rest) * fraction, abs=4 * np.sqrt(len(rest) * fraction))


CHOICE = ["é/0.jpg", "é/4.jpg", "é/7.jpg", "b/2.jpg", "b/3.jpg", "b/6.jpg"]


def test_the_choice_is_the_same_on_every_machine_and_in_every_version():
    _, part = split_off(named({"é": 9, "b": 9}), 0.3, seed=0, argument="test_fraction")
    assert part.names.tolist() == CHOICE
    decomposed = unicodedata.normalize("NFD", "é")
    _, same = split_off(named({decomposed: 9, "b": 9}), 0.3, seed=0, argument="test_fraction")
    assert same.names.tolist() == CHOICE


def test_a_long_tails_end_is_split():
    _, part = split_off(named({f"s{i}": 3 for i in range(40)}), 0.2, seed=0, argument="test_fraction")
    assert (class_counts(part.labels, 40) >= 1).all() and (class_counts(part.labels, 40) <= 2).all()
    tail = named({f"c{i}": 3 if i < 50 else 1 for i in range(1100)})
    rest, part = split_off(tail, 0.1, seed=0, argument="val_fraction")
    assert (class_counts(rest.labels, 1100) >= 1).all() and (class_counts(part.labels, 1100)[:50] >= 1).all()


def test_names_of_classes_are_lines_and_differ():
    require_class_names(["a", "b c", "#1"])
    for names, places, message in [
        (["a", "b", " a"], (), "class 0 and class 2 have the same name, 'a'"),
        (["é", unicodedata.normalize("NFD", "é")], ("x:1", "x:2"), "x:1 and x:2 have the same name"),
        (["a", ""], (), "class 1 has the name ''"),
        (["a", "b\nc"], (), "class 1 has the name"),
    ]:
        with pytest.raises(ValueError, match=message):
            require_class_names(names, places)


@pytest.mark.parametrize(("fraction", "reason"), [(0, "between 0 and 1"), (1.5, "between 0 and 1"), (-1, "between 0")])
def test_split_off_names_the_flag(fraction, reason):
    with pytest.raises(ValueError, match=f"^val_fraction={fraction:g} .*{reason}"):
        split_off(pixels([0] * 9 + [1] * 9, 2), fraction, seed=0, argument="val_fraction")


def test_classes_of_one_image_cannot_be_split():
    with pytest.raises(ValueError, match=r"^val_fraction=0\.5 cannot split 3 images: each class has one"):
        split_off(pixels([0, 1, 2], 3), 0.5, seed=0, argument="val_fraction")
