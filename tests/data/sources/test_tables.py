"""--data=table: what a user with a table and a folder of images gets."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.image_files import touch
from helpers.tables import SAMPLE, stand_ins, write_csv

from deitlt_tf.data import sources
from deitlt_tf.data.dataset import stable_names


@pytest.fixture(scope="module")
def sample_images(tmp_path_factory):
    """Stand-ins for the images of the real sample, where `fetch` would put them."""
    ids = pq.read_table(SAMPLE, columns=["photo_id"])["photo_id"].to_pylist()
    return stand_ins(tmp_path_factory.mktemp("arachnida"), ids)


def load(table, folder, **options):
    """(splits, notes)."""
    notes = []
    splits = sources.load("table", table=[str(table)], data_dir=str(folder), note=notes.append, **options)
    return splits, notes


def numbers(source):
    return source.images.stable_keys


@pytest.mark.parametrize(("rank", "classes"), [("species", 56), ("genus", 46), ("family", 23), ("order", 5)])
def test_the_real_sample_at_every_rank(sample_images, rank, classes):
    splits, _ = load(SAMPLE, sample_images, rank=rank, val_fraction=0.2)
    parts = [splits.train, splits.val, splits.test]
    assert sum(map(len, parts)) == 446 and len(splits.train.class_names) == classes
    counted = splits.taxonomy.number_of_names()
    expected = {"species": 56, "genus": 46, "family": 23, "order": 5}
    assert splits.taxonomy.ranks[0] == rank and all(
        counted[name] == expected[name] for name in counted if name in expected
    )
    # No burst of ids lies in two splits, whichever species its photos show.
    ids = np.concatenate([numbers(part) for part in parts])
    split = np.repeat([0, 1, 2], [len(part) for part in parts])
    order = np.argsort(ids)
    near = np.diff(ids[order]) <= 3
    assert near.sum() == 128 and (np.diff(split[order])[near] == 0).all()
    assert sources.class_counts(splits.train.labels, classes).min() >= 1
    assert 60 < len(splits.test) < 130


def test_two_epithets_of_one_name_are_two_classes(sample_images):
    splits, notes = load(SAMPLE, sample_images)
    names = splits.train.class_names
    assert len(set(names)) == 56 and len({name.split()[1] for name in names}) == 45
    assert sum("joined" in note for note in notes) == 1


def test_a_split_does_not_depend_on_the_rank_or_on_the_rest_of_the_table(sample_images):
    whole = {*numbers(load(SAMPLE, sample_images, rank="order")[0].test).tolist()}
    spiders = load(SAMPLE, sample_images, rank="order", keep="order in (Araneae, Scorpiones)")[0]
    ours = {*numbers(spiders.test).tolist()}
    everything = {*numbers(spiders.test).tolist(), *numbers(spiders.train).tolist()}
    assert len(ours ^ (whole & everything)) <= 2  # the lowest and the highest hash of a class may change sides


def test_a_split_by_photo_leaks_and_says_so(sample_images):
    splits, notes = load(SAMPLE, sample_images, split_by="photo")
    assert np.isin(splits.test.groups, splits.train.groups).sum() > 20
    assert any("split_by=photo" in note for note in notes)
    splits, _ = load(SAMPLE, sample_images, split_by="photo", val_fraction=0.3)
    assert np.isin(splits.val.groups, splits.train.groups).sum() > 20


def animals(**columns):
    """20 images of two species, in four observations each."""
    rows = []
    for i in range(20):
        species, genus = ("Vulpes vulpes", "Vulpes") if i % 2 else ("Meles meles", "Meles")
        row = {
            "file_name": f"{i % 3}/{i}.jpg",
            "genus": genus,
            "species": species,
            "observation_id": f"o{i // 5}{i % 2}",
        }
        rows.append(row | {name: values[i] for name, values in columns.items()})
    return rows


@pytest.fixture
def folder(tmp_path):
    return touch(tmp_path / "images", *(row["file_name"] for row in animals()))


def test_images_at_the_paths_of_the_table(tmp_path, folder):
    table = write_csv(tmp_path / "t.csv", animals())
    splits, notes = load(table, tmp_path, image_root="images", test_fraction=0.3)
    assert notes == [] and splits.train.class_names == ("Meles meles", "Vulpes vulpes")
    assert {str(folder / row["file_name"]) for row in animals()} == {*splits.train.images, *splits.test.images}
    assert not np.isin(splits.train.groups, splits.test.groups).any()
    moved = folder.rename(tmp_path / "elsewhere")
    again, _ = load(table, moved, test_fraction=0.3)
    assert numbers(again.test).tolist() == numbers(splits.test).tolist()
    assert len(stable_names(again.test)) == len(again.test)


def test_a_test_set_of_cameras_or_of_years(tmp_path, folder):
    cameras = ["A", "B", "B", "C", "A"] * 4
    years = [2015 + i // 4 for i in range(20)]
    table = write_csv(tmp_path / "t.csv", animals(camera=cameras, year=years))
    splits, notes = load(table, folder, split_by="camera", test_where="camera in (B)")
    assert notes == [] and len(splits.test) == 8 and len({*splits.test.groups.tolist()}) == 1
    splits, notes = load(table, folder, test_where="year >= 2018")
    assert len(splits.test) == 8 and len(splits.train) == 10
    assert "2 images that `test_where` leaves for training share their group" in notes[0]
    splits, notes = load(table, folder, test_where="year >= 2018", split_by="photo")
    assert len(splits.train) == 12
    for condition, message in [("year > 2100", "no image"), ("year > 1900", "every image")]:
        with pytest.raises(ValueError, match=f"`test_where` makes {message} a test image"):
            load(table, folder, test_where=condition)
    with pytest.raises(ValueError, match="leave no image for training"):
        load(table, folder, split_by="camera", test_where="year != 2017")


def test_classes_without_training_images_are_left_out(tmp_path, folder):
    rows = animals()
    rows[0] |= {"species": "Lynx lynx", "genus": "Lynx", "observation_id": "z"}
    table = write_csv(tmp_path / "t.csv", rows)
    splits, notes = load(table, folder, test_where="observation_id in (z, o00)")
    assert splits.train.class_names == ("Meles meles", "Vulpes vulpes") and len(splits.test) == 2
    assert "1 classes have test images and no training images: they are left out, with 1" in notes[-1]


def test_missing_images_are_named_unless_fetch_has_given_them_up(tmp_path):
    rows = [{"photo_id": 100 * i, "genus": "Apis", "species": "mellifera" if i % 2 else "cerana"} for i in range(12)]
    rows.append({"photo_id": 7, "genus": "Bombus", "species": "terrestris"})
    table = write_csv(tmp_path / "t.csv", rows)
    folder = stand_ins(tmp_path / "images", [row["photo_id"] for row in rows[:11]])
    with pytest.raises(FileNotFoundError, match=r"2 of 13 images of the table are not under .*the first is .*100/1100"):
        load(table, folder)
    lines = [{"id": number, "status": "gone", "http": 404, "url": "http://x"} for number in (1100, 7)]
    (folder / "fetch.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    splits, notes = load(table, folder)
    assert splits.train.class_names == ("Apis cerana", "Apis mellifera") and len(splits.train) + len(splits.test) == 11
    assert any("2 of 13 images could not be fetched and are left out" in note for note in notes)
    (folder / "000" / "0.jpg").unlink()
    mistakes = []
    splits, _ = load(table, folder, complain=mistakes.append)
    assert "1 of 13 images" in str(mistakes[0]) and len(splits.train) + len(splits.test) == 11


def test_homonyms_are_classes_of_their_own(tmp_path, folder):
    families = ["Canidae" if i < 10 else "Mustelidae" for i in range(20)]
    rows = [row | {"genus": "Vulpes", "species": "Vulpes vulpes"} for row in animals(family=families)]
    splits, notes = load(write_csv(tmp_path / "t.csv", rows), folder)
    assert len(splits.train.class_names) == 2 and splits.train.class_names[0] == "Vulpes vulpes (Vulpes, Canidae)"
    assert "1 names of the rank species stand under several parents" in notes[-1]
    assert splits.taxonomy.ranks == ("species", "genus", "family")


def test_classes_of_another_column_have_no_ranks(tmp_path, folder):
    table = write_csv(tmp_path / "t.csv", animals(label=["fox", "badger"] * 10))
    splits, _ = load(table, folder, rank="label")
    assert splits.train.class_names == ("badger", "fox") and splits.taxonomy is None
    assert load(table, folder, rank="Genus")[0].train.class_names == ("Meles", "Vulpes")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"table": []}, ValueError, "`table` is missing"),
        ({"data_dir": ""}, ValueError, "`data_dir` is missing: source table needs the folder of the images"),
        ({"data_dir": "/nowhere"}, FileNotFoundError, "data_dir=/nowhere is not a folder"),
        (
            {"keep": "gensu == Vulpes"},
            ValueError,
            r"t\.csv has no column 'gensu', .* did you mean genus",
        ),
        ({"test_where": "yaer > 5"}, ValueError, r"has no column 'yaer', which `test_where` names"),
        ({"rank": "familly"}, ValueError, r"has no column 'familly', which `rank` names"),
        ({"test_fraction": 1.5}, ValueError, "test_fraction=1.5 must lie between 0 and 1"),
        ({"keep": "genus == Vulpes"}, ValueError, "the only class is 'Vulpes vulpes'"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, folder, options, error, message):
    write_csv(tmp_path / "t.csv", animals())
    with pytest.raises(error, match=message):
        sources.load("table", **{"table": [str(tmp_path / "t.csv")], "data_dir": str(folder)} | options)


def test_one_camera_cannot_be_split(tmp_path, folder):
    table = write_csv(tmp_path / "t.csv", animals(camera=["A"] * 20))
    with pytest.raises(ValueError, match="cannot split 20 images of 1 groups: every class needs one for training"):
        load(table, folder, split_by="camera")


def test_a_long_tail_keeps_the_groups(sample_images):
    splits, _ = load(SAMPLE, sample_images, rank="order", imbalance=20, val_fraction=0.3)
    assert not np.isin(splits.val.groups, splits.train.groups).any()
    assert not np.isin(splits.test.groups, splits.train.groups).any()
