"""Headers against Pillow and the decoder, the survey of files, and the program on tiny sets with one mistake each."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deitlt_tf.data import decode, sources
from deitlt_tf.inspect_data import __main__ as inspect_data
from deitlt_tf.inspect_data import headers, summary, survey
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.data import load_splits

LIMIT = 1_000_000


def picture(width=23, height=17, *, seed=0, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def interlaced_png(width, height):
    """Adam7, which Pillow reads but cannot write; grey level = row + column."""
    grid = np.add.outer(np.arange(height), np.arange(width)).astype(np.uint8)
    starts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [grid[y::dy, x::dx] for y, x, dy, dx in starts]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in [*chunks, (b"IEND", b"")]
    )


def top_down_bmp(image):
    data = bytearray(encoded(image, "BMP"))
    data[22:26] = struct.pack("<i", -image.height)
    return bytes(data)


def fill_bytes(jpeg):
    """Rubbish and repeated 255 between two segments: libjpeg passes them over."""
    end = 4 + int.from_bytes(jpeg[4:6])
    return jpeg[:end] + b"\x07\x07\xff\xff" + jpeg[end:]


EXIF = Image.Exif()
EXIF[0x010E] = "a description that no buffer holds " * 1500
ENCODINGS = {
    "jpeg": lambda image: encoded(image, "JPEG"),
    "jpeg progressive": lambda image: encoded(image, "JPEG", progressive=True),
    "jpeg grey": lambda image: encoded(image.convert("L"), "JPEG"),
    "jpeg cmyk": lambda image: encoded(image.convert("CMYK"), "JPEG"),
    "jpeg exif": lambda image: encoded(image, "JPEG", exif=EXIF),
    "jpeg profile": lambda image: encoded(image, "JPEG", icc_profile=bytes(200_000)),
    "jpeg thumbnail": lambda image: encoded(image, "JPEG", comment=encoded(picture(5, 9), "JPEG")),
    "jpeg restart": lambda image: encoded(image, "JPEG", restart_marker_rows=1),
    "jpeg fill bytes": lambda image: fill_bytes(encoded(image, "JPEG")),
    "png": lambda image: encoded(image, "PNG"),
    "png palette": lambda image: encoded(image.convert("P"), "PNG"),
    "png interlaced": lambda image: interlaced_png(*image.size),
    "webp VP8": lambda image: encoded(image, "WEBP"),
    "webp VP8L": lambda image: encoded(image, "WEBP", lossless=True),
    "webp VP8X": lambda image: encoded(image.convert("RGBA"), "WEBP", exif=EXIF),
    "bmp": lambda image: encoded(image, "BMP"),
    "bmp palette": lambda image: encoded(image.convert("P"), "BMP"),
    "bmp alpha": lambda image: encoded(image.convert("RGBA"), "BMP"),
    "bmp top-down": top_down_bmp,
}
SAMPLES = {name: encode(picture()) for name, encode in ENCODINGS.items()}


def header(data):
    return headers.read(io.BytesIO(data), length=len(data))


# ---- headers ---------------------------------------------------------------------------------------------------------


@settings(max_examples=5, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
@pytest.mark.parametrize("name", ENCODINGS)
def test_sizes_equal_pillows(name, width, height):
    data = ENCODINGS[name](picture(width, height))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert header(data)[1:] == image.size == (width, height)
        assert header(data).format.upper() == image.format


def test_the_samples_are_what_their_names_say():
    assert Image.open(io.BytesIO(SAMPLES["jpeg progressive"])).info["progressive"]
    assert Image.open(io.BytesIO(SAMPLES["png interlaced"])).info["interlace"] == 1
    assert [SAMPLES[f"webp {chunk}"][12:16].decode().strip() for chunk in ("VP8", "VP8L", "VP8X")] == [
        "VP8", "VP8L", "VP8X"
    ]  # fmt: skip
    assert len(SAMPLES["jpeg exif"]) > 50_000 and len(SAMPLES["jpeg profile"]) > 200_000
    assert SAMPLES["jpeg thumbnail"].count(b"\xff\xd9") == 2


@settings(deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.floats(0, 1, exclude_max=True))
def test_every_file_that_was_cut_off_is_refused(name, share):
    with pytest.raises(ValueError, match=r"cut off|damaged|empty|not a JPEG"):
        header(SAMPLES[name][: int(share * len(SAMPLES[name]))])


@settings(deadline=None)
@given(st.sampled_from([name for name in sorted(SAMPLES) if "bmp" not in name]), st.binary(max_size=10_000))
def test_what_follows_the_end_changes_nothing(name, rest):
    assert header(SAMPLES[name] + rest) == header(SAMPLES[name])


def in_memory(images):
    return sources.Source(np.array(images, object), np.zeros(len(images), np.int32), ("a",))


def test_what_headers_refuse_the_decoder_refuses():
    rng = np.random.default_rng(0)
    cut = [data[: len(data) - missing] for data in SAMPLES.values() for missing in (40, 200)]
    damaged = []
    for data in SAMPLES.values():
        for _ in range(12):
            wrong = np.frombuffer(data, np.uint8).copy()
            wrong[rng.integers(0, 60, 2)] = rng.integers(0, 256, 2)
            damaged.append(wrong.tobytes())
    others = [b"", b"<html>404</html>", encoded(picture(), "GIF"), encoded(picture(mode="1"), "BMP")]
    others += [encoded(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)])]
    images = [*SAMPLES.values(), *cut, *others, *damaged]
    by_decoder = {index for index, _ in decode.bad_images(images, [""] * len(images), max_pixels=LIMIT, progress=False)}
    looks = survey.look(in_memory(images), max_pixels=LIMIT)
    by_headers = {index for index, seen in enumerate(looks) if seen.problem}
    sure = set(range(len(SAMPLES), len(images) - len(damaged)))
    assert sure <= by_headers <= by_decoder and by_decoder.isdisjoint(range(len(SAMPLES)))
    assert len(by_headers) - len(sure) > 50  # damaged headers are noticed, too


# ---- the survey ------------------------------------------------------------------------------------------------------

PATHS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), min_size=1, unique=True)


@settings(max_examples=40, deadline=None)
@given(PATHS, st.data())
def test_absent_folders_are_the_topmost_without_any_file(folders, data):
    paths = [f"{folder}/{i}.jpg" for folder in folders for i in range(2)] + ["beside.jpg"]
    missing = set(data.draw(st.lists(st.sampled_from(paths), unique=True)))
    found = survey.absent_folders(paths, missing)

    def within(folder):
        return {path for path in paths if path.startswith(f"{folder}/")}

    for folder, count in found.items():
        assert within(folder) <= missing and count == len(within(folder))
        assert not any(folder.startswith(f"{other}/") for other in found)
    rest = missing - {path for folder in found for path in within(folder)}
    assert not any(within(os.path.dirname(path)) <= missing for path in rest if "/" in path)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_copies_are_images_with_the_same_bytes_in_files_and_in_memory(tmp_path, monkeypatch):
    first, second = (encoded(picture(seed=seed), "PNG") for seed in (1, 2))
    longer = first + b"."
    disguised = bytearray(encoded(picture(60, 60), "BMP"))  # the same length, the same end, another pixel
    original = bytes(disguised)
    disguised[1000] ^= 1
    images = [first, second, first, longer, original, bytes(disguised), b"broken", b"broken"]
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, data in zip(paths, images, strict=True):
        Path(path).write_bytes(data)
    read_whole = []
    digest = survey._digest
    monkeypatch.setattr(survey, "_digest", lambda image: read_whole.append(image) or digest(image))
    for kind in (paths, images):
        source = in_memory(kind)
        looks = survey.look(source, max_pixels=LIMIT)
        assert looks[4][:3] == looks[5][:3]
        groups = survey.copies({"train": (source, looks), "test": (source, looks)})
        assert sorted(sorted(group) for group in groups) == sorted(
            sorted((split, i) for split in ("train", "test") for i in group) for group in ([0, 2], [1], [3], [4], [5])
        )
        read_whole.clear()
        assert survey.copies({"train": (source, looks)}) == [[("train", 0), ("train", 2)]]
        assert len(read_whole) == 4  # the pair and the disguised pair


# ---- the program -----------------------------------------------------------------------------------------------------


@pytest.fixture
def inspect(program, monkeypatch, tmp_path):
    """inspect(*arguments) -> (exit code, all that was printed, the JSON report or None)."""

    def call(*arguments):
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        # the picture has its own test: it would take half of the time of each
        monkeypatch.setattr(summary, "plot", lambda counts, path: path.write_text("plotted"))
        code, printed = program(inspect_data, f"--workdir={folder}", *arguments, takes=("decode",))
        path = folder / "inspect.json"
        return code, printed, json.loads(path.read_text()) if path.is_file() else None

    return call


@pytest.fixture
def folder(tmp_path):
    """train/ with 4 + 2 images of two classes, val/ with 1 + 1, test/ with 2 + 1; each image another one."""
    root, seed = tmp_path / "images", 0
    for split, sizes in (("train", (4, 2)), ("val", (1, 1)), ("test", (2, 1))):
        for name, size in zip(("ant", "bee"), sizes, strict=True):
            (root / split / name).mkdir(parents=True)
            for i in range(size):
                seed += 1
                picture(20 + seed, 30, seed=seed).save(root / split / name / f"{i}.{'jpg' if i % 2 else 'png'}")
    return root


def test_a_good_folder(inspect, folder):
    code, printed, report = inspect(f"--data_dir={folder}", "--reweight_epoch=7", "--beta=.9", "--method=deit_lt")
    assert code == 0 and "nothing was found that training would fail at" in printed
    assert report["errors"] == report["warnings"] == report["copies"] == []
    assert report["classes"] == {"names": ["ant", "bee"], "train": [4, 2], "val": [1, 1], "test": [2, 1]}
    train = report["splits"]["train"]
    assert {key: train[key] for key in ("images", "classes", "missing", "unreadable")} == {
        "images": 6, "classes": 2, "missing": 0, "unreadable": 0
    }  # fmt: skip
    assert train["formats"] == {"PNG": 3, "JPEG": 3}
    assert train["width"] == {"min": 21, "5 %": 21, "median": 23, "95 %": 26, "max": 26}
    assert set(train["height"].values()) == {30}
    assert report["imbalance"] == 2
    assert report["groups"]["shots"]["tail"] == {"classes": 2, "images": 6}
    student = report["weights"]["student"]
    assert student["from_epoch"] == 7 and student["span"] == pytest.approx((1 - 0.9**4) / (1 - 0.9**2))
    assert student["smallest"] + student["largest"] == pytest.approx(2)
    assert "from epoch 7 on" in printed and "train        6        2" in printed
    _, printed, report = inspect(f"--data_dir={folder}", "--method=deit", "--imbalance=4")
    assert report["weights"]["student"]["from_epoch"] is None and "never used" in printed
    assert report["classes"]["train"] == [4, 1] and report["imbalance"] == 4


def test_images_that_cannot_be_read(inspect, folder):
    path, large = (folder / "train" / "ant" / name for name in ("1.jpg", "large.png"))
    path.write_bytes(path.read_bytes()[:-90])
    picture(100, 30).save(large)
    arguments = (f"--data_dir={folder}", "--max_megapixels=.001")
    code, printed, report = inspect(*arguments)
    assert code == 1 and "error: training would fail: see 1 error above." in printed
    assert f"2 images of train cannot be read, the first is {path}: cut off" in printed
    limit = "100 x 30 pixels are more than the limit of 1000 (--max_megapixels)"
    assert report["unreadable"]["train"][1] == f"{large}: {limit}" and report["splits"]["train"]["unreadable"] == 2
    code, _, report = inspect(*arguments, "--skip_bad_images")
    assert code == 0 and report["classes"]["train"] == [3, 2] and len(report["warnings"]) == 1


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


@pytest.mark.slow
def test_decode_finds_what_headers_do_not_show(inspect, folder):
    path = folder / "test" / "ant" / "0.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    assert inspect(f"--data_dir={folder}")[0] == 0
    code, printed, report = inspect(f"--data_dir={folder}", "--decode")
    assert code == 1 and f"1 image of test cannot be read, the first is {path}: Invalid PNG" in printed
    assert report["splits"]["test"]["formats"] == {"JPEG": 1, "PNG": 1}


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
        "class folder train/cow holds no images (.jpg, .jpeg, .png, .webp, .bmp)",
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
    recipe = f"--flagfile={GOLDEN.parent.parent / 'configs' / 'places_lt.cfg'}"
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
    assert printed.count("\n     ") >= 10 and "between" not in printed


def test_what_cannot_be_loaded_at_all_is_one_sentence(inspect, tmp_path):
    code, printed, report = inspect(f"--data_dir={tmp_path / 'nowhere'}")
    assert code == 1 and report is None
    assert printed.startswith(f"error: --data_dir={tmp_path / 'nowhere'} is not a folder: it should hold train/")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["none", "cut", "dangling", "stranger", "empty class", "copy", "no test images"])
@pytest.mark.parametrize("skip", [False, True])
def test_the_exit_code_is_what_training_would_say(inspect, folder, damage, skip, tmp_path):
    damages = {
        "none": lambda: None,
        "cut": lambda: (folder / "test" / "ant" / "1.jpg").write_bytes(b"\xff\xd8\xff"),
        "dangling": lambda: os.symlink(folder / "gone.jpg", folder / "train" / "bee" / "9.jpg"),
        "stranger": lambda: (folder / "test" / "zebra").mkdir(),
        "empty class": lambda: (folder / "train" / "cow").mkdir(),
        "copy": lambda: shutil.copy(folder / "train" / "ant" / "0.png", folder / "test" / "ant" / "9.png"),
        "no test images": lambda: shutil.rmtree(folder / "test" / "bee"),
    }
    damages[damage]()
    arguments = [f"--data_dir={folder}", *(["--skip_bad_images"] if skip else [])]
    code, _, _ = inspect(*arguments)
    flags = command_line.parse(["train", *arguments])
    try:
        splits = load_splits(flags, folder=tmp_path / "trained")
        failed = any(decode.bad_images_of(part, max_pixels=LIMIT) for part in (splits.train, splits.val, splits.test))
    except (ValueError, OSError):
        failed = True
    assert bool(code) == failed


def test_the_profile_is_a_drawing_that_repeats(tmp_path):
    for name in ("one.svg", "two.svg"):
        summary.plot(np.array([0, 5, 900, 30]), tmp_path / name)
    text = (tmp_path / "one.svg").read_text()
    assert ElementTree.fromstring(text).tag.endswith("svg") and text == (tmp_path / "two.svg").read_text()
    assert all(f"fill: {colour}" in text for colour in summary.COLOURS.values())


@pytest.mark.slow
def test_as_a_process(folder, tmp_path):
    (folder / "train" / "ant" / "1.jpg").write_bytes(b"GIF89a")
    command = [sys.executable, "-m", "deitlt_tf.inspect_data", f"--data_dir={folder}", f"--workdir={tmp_path / 'run'}"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=GOLDEN.parent.parent)
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: training would fail")
    assert "1.jpg: not a JPEG, PNG, BMP or (not animated) WebP image" in result.stdout
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"inspect.json", "profile.svg"}
    result = subprocess.run([*command, "--skip_bad_images"], capture_output=True, text=True, cwd=GOLDEN.parent.parent)
    assert result.returncode == 0 and "Traceback" not in result.stderr
