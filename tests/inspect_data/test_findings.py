"""Tiny data sets with one mistake each: which sentences they get, and which of them would stop a training run."""

import json
import os
import shutil
import time

import numpy as np
import pytest
from helpers import GOLDEN, ROOT
from helpers.encodings import SAMPLES, picture
from helpers.tables import write_csv
from PIL import Image

from deitlt_tf.inspect_data import findings, survey


@pytest.mark.slow
def test_a_class_or_split_without_a_readable_image_cannot_be_skipped(inspect, folder):
    for emptied in (*folder.glob("train/bee/*"), *folder.glob("val/*/*")):
        emptied.write_bytes(b"")
    code, printed, _ = inspect(f"--data_dir={folder}", "--skip_bad_images")
    assert code == 1 and "no readable training image is left of 1 class (bee)" in printed
    assert "no readable image is left of val" in printed


def test_a_missing_end_is_no_error_where_all_rows_are_there(inspect, folder):
    path = folder / "train" / "ant" / "1.jpg"
    path.write_bytes(SAMPLES["jpeg"][:-1])
    code, printed, report = inspect(f"--data_dir={folder}")
    assert code == 0 and report["unreadable"]["train"] == []
    assert f"1 image of train may be damaged, but can be decoded, the first is {path}: cut off" in printed


def test_copies_are_warned_of(inspect, folder):
    ant, bee = folder / "train" / "ant", folder / "train" / "bee"
    shutil.copy(ant / "0.png", ant / "copy.png")
    shutil.copy(ant / "0.png", folder / "test" / "ant")
    shutil.copy(ant / "1.jpg", bee / "other.jpg")
    code, _, report = inspect(f"--data_dir={folder}")
    assert code == 0 and len(report["copies"]) == 2
    assert report["warnings"] == [
        f"2 images of train are copies of others in train, e.g. {ant / '0.png'} = {ant / 'copy.png'}",
        f"1 image of test are also in train, e.g. {ant / '0.png'} = {folder / 'test' / 'ant' / '0.png'}",
        f"1 image with copies of another label, e.g. {ant / '1.jpg'} = {bee / 'other.jpg'}",
    ]


def test_all_mistakes_of_a_folder_at_once(inspect, folder):
    (folder / "train" / "cow").mkdir()
    (folder / "test" / "zebra").mkdir()
    os.symlink(folder / "gone.jpg", folder / "test" / "bee" / "9.jpg")
    shutil.rmtree(folder / "test" / "ant")
    code, _, report = inspect(f"--data_dir={folder}")
    assert code == 1
    assert [sentence.replace(f"{folder}/", "") for sentence in report["errors"]] == [
        "class folder train/cow holds no images (JPEG, PNG, WebP, BMP)",
        "test/zebra is a class that train/ does not have",
        "class 'cow' has no training images",
        "1 image missing, the first is test/bee/9.jpg",
    ]
    assert report["warnings"] == [
        "val has no images of 1 class (cow): no accuracy can be measured there",
        "test has no images of 2 classes (ant, cow): no accuracy can be measured there",
    ]
    assert report["weights"] == {} and report["imbalance"] is None


def test_places_lt_without_images_names_the_archives(inspect, tmp_path):
    root = tmp_path / "places"
    shutil.copytree(GOLDEN / "places_lt", root)
    recipe = f"--flagfile={ROOT / 'configs' / 'places_lt.cfg'}"
    workdir = f"--workdir={tmp_path / 'run'}"
    code, printed, report = inspect(recipe, workdir, f"--data_dir={root}")
    assert code == 1 and report["missing"]["folders"] == {"data_256": 1095, "val_256": 365}
    assert f"data_256/ is missing with all 1095 images listed in it: unpack its archive in {root}, or" in printed
    assert "    ... 345 classes between" in printed and "a/airfield" in printed
    assert report["splits"]["train"]["missing"] == 730 and len(report["missing"]["files"]) == 1460
    first = (root / "Places_LT_test.txt").read_text().split()[0]
    (root / "standard" / "data_256").mkdir(parents=True)
    (root / first).parent.mkdir()
    picture().save(root / first)
    code, printed, report = inspect(recipe, workdir, f"--data_dir={root}")
    assert code == 1 and report["missing"]["folders"] == {"data_256": 1095}
    assert f"it lies in {root / 'standard'}: name that with --image_root" in printed
    assert f"364 images missing elsewhere, the first is {root}/val_256/" in printed


def test_lists_whose_classes_differ(inspect, tmp_path):
    (tmp_path / "train.txt").write_text("a/0.png 0\na/1.png 0\na/2.png 0\nc/0.png 2\n")
    (tmp_path / "test.txt").write_text("a/1.png 0\nt/0.png 5\nt/1.png 7\nt/2.png 2\n")
    for seed, name in enumerate(("a/0", "a/1", "a/2", "c/0", "t/0", "t/1", "t/2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(seed=seed).save(tmp_path / f"{name}.png")
    arguments = ("--data=list", f"--data_dir={tmp_path}", "--train_list=train.txt", "--test_list=test.txt")
    code, _, report = inspect(*arguments)
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    assert code == 1 and report["errors"] == [
        f"{train} has no image of label 1, but labels up to 2",
        f"{test}:2: label 5 is outside 0..2, the labels of {train} (and 1 more)",
        f"a/1.png is both in {train} and in {test}: an image belongs to one split",
        "class 'class 1' has no training images",
    ]
    assert report["classes"]["test"] == [1, 0, 1]
    assert report["warnings"][-1] == f"1 image of test are also in train, e.g. {tmp_path}/a/1.png = {tmp_path}/a/1.png"
    train.write_text("a/0.png 0\nc/0.png 999999999\n")
    code, printed, report = inspect(*arguments)
    assert code == 1 and "has no image of label 1, but labels up to 999999999" in printed and report is None
    train.write_text("a/0.png 0\na/1.png 0\na/2.png 2\n")
    test.write_text("t/0.png 5\n")
    code, printed, report = inspect(*arguments)
    assert code == 1 and "label 5 is outside" in printed and "no image with a label of the training list" in printed


def test_inaturalist(inspect, tmp_path):
    categories = [{"id": 7, "name": "owl"}, {"id": 3, "name": "fox"}]
    for split, files in (("train", ["x/1.jpg", "x/2.jpg", "y/3.jpg"]), ("val", ["x/4.jpg"])):
        images = [{"id": i, "file_name": f"train_val2018/{file}"} for i, file in enumerate(files)]
        annotations = [{"image_id": i, "category_id": 7 if file[0] == "x" else 3} for i, file in enumerate(files)]
        text = json.dumps({"categories": categories, "images": images, "annotations": annotations})
        (tmp_path / f"{split}2018.json").write_text(text)
    code, printed, report = inspect("--data=inat", f"--data_dir={tmp_path}")
    assert code == 1 and report["classes"]["names"] == ["fox", "owl"] and report["classes"]["train"] == [1, 2]
    assert "train_val2018/ is missing with all 4 images listed in it" in printed


def test_pixels_are_counted(inspect):
    code, printed, report = inspect("--data=digits_lt", "--imbalance=20")
    assert code == 0 and report["splits"]["test"]["formats"] == {"pixels": 600} and report["unreadable"] == {}
    assert report["splits"]["train"]["width"]["median"] == 8 and report["classes"]["train"][0] == 118
    assert printed.count("\n     ") >= 10 and "classes between" not in printed


def test_what_other_programs_show_differently_is_warned_of(inspect, folder):
    ant = folder / "train" / "ant"
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in ("turned.jpg", "turned.webp"):
        picture(20, 30, seed=len(name)).save(ant / name, exif=turned)
    for level, name in ((4095, "dark.png"), (900, "darker.png")):
        Image.fromarray(np.random.default_rng(level).integers(0, level + 1, (9, 9)).astype(np.uint16)).save(ant / name)
    cmyk = SAMPLES["jpeg cmyk"]
    start = cmyk.index(b"\xff\xee")
    (ant / "z.jpg").write_bytes(cmyk[:start] + cmyk[start + 2 + int.from_bytes(cmyk[start + 2 : start + 4]) :])
    code, _, report = inspect(f"--data_dir={folder}")
    first, second, third = report["warnings"]
    assert code == 0 and first.startswith(
        "2 images of train have an EXIF orientation, which training, exports and the demo"
    )
    assert first.endswith(f"the first is {ant}/turned.jpg")
    assert second.startswith("1 image of train are CMYK JPEGs") and second.endswith(f"{ant}/z.jpg")
    assert third.startswith("2 PNG images of train have 16 bits a channel") and "in a sample of 2 is 40" in third
    picture(9, 9, mode="L").convert("I;16").point(lambda level: level * 257).save(ant / "bright.png")
    assert len(inspect(f"--data_dir={folder}")[2]["warnings"]) == 2


def test_notes_on_the_folder_are_warnings(inspect, folder):
    (folder / "train" / "ant" / "a.tif").write_bytes(b"II*")
    for name in ("owl", "robin"):
        shutil.copytree(folder / "test" / "bee", folder / "train" / "birds" / name)
    code, printed, report = inspect(f"--data_dir={folder}")
    assert (
        code == 0
        and f"{folder}/train has files that are not read, as they are not JPEG, PNG, WebP or BMP: 1 .tif." in printed
    )
    assert any("birds/ (owl/, robin/)" in sentence for sentence in report["warnings"])
    shutil.rmtree(folder / "test")
    shutil.rmtree(folder / "val")
    (folder / "extra").mkdir()
    code, printed, _ = inspect(f"--data_dir={folder}")  # there is no test set
    assert code == 1 and f"note: {folder} has folders that are not read: extra/." in printed


def test_placeholders_of_a_disk_are_empty_files(inspect, folder):
    (folder / "train" / "ant" / "online only.jpg").write_bytes(b"")
    code, printed, _ = inspect(f"--data_dir={folder}")
    assert code == 1 and "online only.jpg: empty file" in printed


def test_many_missing_folders_take_time_in_proportion(tmp_path):
    def seconds(count):
        folders = {f"n{i}/deep": 2 for i in range(count)}
        files = [f"n{i}/deep/{j}.jpg" for i in range(count) for j in range(2)] + ["rest/0.jpg"]
        listed = [*files, "rest/1.jpg"]
        start = time.perf_counter()
        assert len(survey.absent_folders(listed, files)) == count
        (*_, more, single) = findings.on_missing(files=files, folders=folders, root=str(tmp_path))
        assert f"{count - 10} more folders missing" in more and "1 image missing elsewhere" in single
        return time.perf_counter() - start

    assert seconds(20_000) < 1


# ---- tables ----------------------------------------------------------------------------------------------------------


def table_of_observations(folder, root):
    """A CSV of all images of `folder`, two of an observation, and one folder of images."""
    rows, images = [], sorted(folder.glob("*/*/*"))
    (root / "all").mkdir()
    for number, path in enumerate(images):
        shutil.copy(path, root / "all" / f"{number}{path.suffix}")
        name = f"all/{number}{path.suffix}"
        rows.append({"path": name, "family": path.parent.name, "observation_id": f"o{number // 2}"})
    return write_csv(root / "t.csv", rows), len(rows)


def test_test_images_that_share_a_group_with_training_are_counted(inspect, folder, tmp_path):
    table, count = table_of_observations(folder, tmp_path)
    arguments = ("--data=table", f"--table={table}", f"--data_dir={tmp_path}", "--rank=family", "--test_fraction=.4")
    code, printed, report = inspect(*arguments)
    images = report["splits"]["test"]["images"]
    assert code == 0 and report["shared_groups"] == {"test": 0} and report["taxonomy"] == {"family": 2}
    assert f"0 of {images} images of test share an observation or group with training images" in printed
    assert not [sentence for sentence in report["warnings"] if "share" in sentence]
    code, printed, report = inspect(*arguments, "--split_by=photo", "--val_fraction=.5", "--split_seed=1")
    assert code == 0 and sum(part["images"] for part in report["splits"].values()) == count
    assert report["shared_groups"]["test"] + report["shared_groups"]["val"] > 0
    assert any("share an observation (what `split_by` names) with training images" in x for x in report["warnings"])
    assert any("split_by=photo splits images one by one" in x for x in report["warnings"])


def test_folders_of_folders_are_pointed_out(inspect, tmp_path):
    for split in ("train", "test"):
        for number, name in enumerate(("Apis/mellifera", "Bombus/terrestris")):
            (tmp_path / split / name).mkdir(parents=True)
            picture(20 + number, 30, seed=number + 5 * len(split)).save(tmp_path / split / name / "1.png")
    code, _, report = inspect(f"--data_dir={tmp_path}")
    sentence = (
        "the images of 2 of 2 classes lie in folders of their own, such as Apis/ (mellifera/), Bombus/ (terrestris/)"
    )
    assert code == 0 and sum(sentence in warning for warning in report["warnings"]) == 2
    for path in (tmp_path / "train" / "Apis").rglob("*.png"):
        path.unlink()
    _, _, report = inspect(f"--data_dir={tmp_path}")
    assert "holds no images (JPEG, PNG, WebP, BMP), only folders (mellifera/)" in report["errors"][0]
