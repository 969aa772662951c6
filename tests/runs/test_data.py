"""The splits of a run: counted in a line, and without the images that cannot be decoded where that is wished."""

import pytest
from helpers.files import tiny_model

from deitlt_tf.runs.checkpoints import Checkpoints
from deitlt_tf.runs.data import identity, load_splits, note_other_data
from deitlt_tf.runs.files import write_text
from deitlt_tf.runs.folder import claim
from deitlt_tf.runs.models import save_model


def test_a_line_says_how_many_images_there_are(images, tmp_path, capsys):
    splits = load_splits("folder", folder=tmp_path, data_dir=str(images))
    assert (len(splits.train), splits.val, len(splits.test)) == (23, None, 12)
    assert capsys.readouterr().out == "folder: 23 training images in 3 classes (12 to 5), 12 for testing\n"
    load_splits("digits_lt", folder=tmp_path, imbalance=10, val_fraction=0.2)
    assert " for validation, 600 for testing\n" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_images_that_cannot_be_decoded_are_left_out_and_listed(images, tmp_path, capsys):
    damaged, large = images / "train" / "blue" / "1.jpg", images / "test" / "green" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:-200])
    options = {"folder": tmp_path, "data_dir": str(images), "skip_bad_images": True}
    splits = load_splits("folder", **options)
    assert (len(splits.train), len(splits.test)) == (22, 12) and str(damaged) not in splits.train.images
    report = (tmp_path / "skipped_images.txt").read_text()
    assert report.startswith(f"train\t{damaged}\t{damaged}: ") and report.count("\n") == 1
    assert f"skipped 1 images that cannot be decoded, listed in {tmp_path}" in capsys.readouterr().out

    large.write_bytes(damaged.read_bytes())
    assert len(load_splits("folder", **options).test) == 11
    assert (tmp_path / "skipped_images.txt").read_text().splitlines()[1].startswith(f"test\t{large}\t{large}: ")


def test_nothing_to_skip_is_said_too(images, tmp_path, capsys):
    (tmp_path / "kinds.csv").write_text("class,kind\nred,warm\nblue,cold\ngreen,cold\n")
    options = {"data_dir": str(images), "taxonomy_file": str(tmp_path / "kinds.csv")}
    assert load_splits("folder", folder=tmp_path, **options, skip_bad_images=True).taxonomy
    assert "skipped 0 images that cannot be decoded\n" in capsys.readouterr().out
    assert (tmp_path / "skipped_images.txt").read_text() == ""


def test_a_class_that_loses_all_of_its_images_is_named(images, tmp_path):
    for path in (images / "train" / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"class 'red' has no readable training image left: see .*skipped_images\.txt"):
        load_splits("folder", folder=tmp_path, data_dir=str(images), skip_bad_images=True)


@pytest.mark.parametrize(
    ("source", "drawn"),
    [
        ({"name": "folder"}, []),
        ({"name": "folder", "data_dir": "train"}, ["`test_fraction`"]),
        ({"name": "folder", "val_fraction": 0.5}, ["`val_fraction`"]),
        ({"name": "folder", "data_dir": "train", "val_fraction": 0.4}, ["`val_fraction`", "`test_fraction`"]),
        ({"name": "digits_lt"}, []),
    ],
)
def test_the_flags_that_held_images_out_are_known(images, tmp_path, source, drawn):
    if source["name"] == "folder":
        source = source | {"data_dir": str(images / source.get("data_dir", ""))}
    splits = load_splits(folder=tmp_path, **source)
    keywords = identity(splits, skip_bad_images=False, **source)
    assert keywords["drawn"] == drawn and keywords["class_names"] == splits.train.class_names
    assert keywords["data"]["train"]["images"] == len(splits.train)


def test_an_evaluation_says_in_a_line_that_the_data_are_others(images, tmp_path, capsys):
    def keywords(**source):
        splits = load_splits("folder", folder=tmp_path, **source)
        capsys.readouterr()
        return identity(splits, name="folder", **source)

    one, other = keywords(data_dir=str(images)), keywords(data_dir=str(images / "train"))
    folder = tmp_path / "run"
    claim(folder, flags={}, **one)
    note_other_data(folder, **one)
    assert capsys.readouterr().out == ""
    note_other_data(folder, **other)
    text = capsys.readouterr().out
    assert text.startswith(f"note: these are not the data of {folder}: the train split had 23 images and has ")
    write_text(folder / "data.json", "?")
    note_other_data(folder, **one)
    assert capsys.readouterr().out.startswith(f"note: {folder / 'data.json'} cannot be read")

    (folder / "data.json").unlink()
    write_text(folder / "flags.cfg", "")
    note_other_data(folder, **other)
    assert capsys.readouterr().out == ""  # an imported model
    write_text(folder / "metrics.jsonl", "")
    Checkpoints(folder).save(1, {}, {})
    note_other_data(folder, **other)
    assert "is a run of version 0.1.0, which held out other images for `test_fraction`" in capsys.readouterr().out


def test_a_taxonomy_comes_from_its_file_or_from_the_models_of_the_run(images, tmp_path, capsys):
    names = ("blue", "green", "red")
    (tmp_path / "colours.csv").write_text("class,kind\nred,warm\nblue,cold\ngreen,cold\n")
    options = {"folder": tmp_path / "run", "data_dir": str(images), "taxonomy_file": str(tmp_path / "colours.csv")}
    splits = load_splits("folder", **options)
    assert splits.taxonomy.nodes == (names, ("cold", "warm"))
    assert capsys.readouterr().out.endswith("12 for testing\ntaxonomy: 3 class, 2 kind\n")
    (tmp_path / "colours.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"taxonomy_file=.*colours\.csv: there is no such file"):
        load_splits("folder", **options)
    model = tmp_path / "run" / "teacher.keras"
    save_model(tiny_model(), model, class_names=names, taxonomy=splits.taxonomy)
    assert load_splits("folder", **options).taxonomy.to_dict() == splits.taxonomy.to_dict()
    assert "colours.csv (`taxonomy_file`) any more; the taxonomy is that of the models in" in capsys.readouterr().out
    assert load_splits("folder", **options | {"taxonomy_file": None}).taxonomy.ranks == ("class", "kind")
