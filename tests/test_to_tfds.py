"""The command that writes shards: what it prints, what it leaves to the run that trains, and its mistakes."""

import numpy as np
import pytest

from deitlt_tf import to_tfds
from deitlt_tf.data import shards
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.data import load_splits


@pytest.fixture
def write(program):
    """write(*arguments) -> (exit code, all that was printed)."""
    return lambda *arguments: program(to_tfds, *arguments, takes=("out",))


def splits_of(*arguments, folder):
    recipe = command_line.recipe_of(["train", *map(str, arguments)])
    return load_splits(folder=folder, **recipe.data.loading())


def test_the_recipe_with_the_shards_is_the_same_run(write, images, tmp_path):
    (tmp_path / "kinds.csv").write_text("class,kind,all\nred,,x\nblue,cold,x\ngreen,cold,x\n")
    recipe = ["--imbalance=3", "--imbalance_seed=1", f"--data_dir={images}", f"--taxonomy_file={tmp_path}/kinds.csv"]
    code, printed = write(*recipe, f"--out={tmp_path}/shards/my_set/")
    assert code == 0 and f"train with --data=tfds:my_set --data_dir={tmp_path}/shards" in printed, printed
    assert f"--taxonomy_file={tmp_path}/shards/my_set/taxonomy.csv" in printed
    assert [path.name for path in (tmp_path / "shards").iterdir()] == ["my_set"]
    files = splits_of(*recipe, folder=tmp_path)
    written = ("--data=tfds:my_set", f"--data_dir={tmp_path}/shards")
    written += (f"--taxonomy_file={tmp_path}/shards/my_set/taxonomy.csv",)
    packed = splits_of(*recipe, *written, folder=tmp_path)
    assert files.taxonomy.to_dict() == packed.taxonomy.to_dict()
    assert len(files.train) < 23 and files.train.class_names == packed.train.class_names
    for part, other in ((files.train, packed.train), (files.test, packed.test)):
        np.testing.assert_array_equal(part.labels, other.labels)
        assert [shards.read(path) for path in part.images] == list(other.images)


def test_mistakes_are_one_sentence_and_leave_nothing(write, images, tmp_path):
    (tmp_path / "there").mkdir()
    for out, message in [
        ("", "--out is missing: name the folder"),
        (f"{tmp_path}/there", f"--out={tmp_path}/there is there already: nothing was written"),
        (f"{tmp_path}/My-Set", "'My-Set' must have lower-case letters, digits and _ only"),
        ("gs://bucket/my_set", "--out=gs://bucket/my_set is a URL: write to a disk"),
    ]:
        code, printed = write(f"--data_dir={images}", f"--out={out}")
        assert code == 1 and message in printed and printed.count("\n") == 1
    code, printed = write("--data=digits_lt", f"--out={tmp_path}/my_set")
    assert code == 1 and "--data=digits_lt does not come as image files" in printed
    code, printed = write(f"--data_dir={images / 'nowhere'}", f"--out={tmp_path}/my_set")
    assert code == 1 and f"--data_dir={images / 'nowhere'} is not a folder" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"images", "there"}
