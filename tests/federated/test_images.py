"""Whose images are whose: one data set divided, folders of clients with one list of classes."""

import numpy as np
import pytest
from helpers.federation import CLASSES, recipe_in, source_of, write_clients

from deitlt_tf.data.dataset import Splits
from deitlt_tf.federated import images


@pytest.fixture
def folders(tmp_path):
    """north/ with three classes, south/ with one of them; south comes first."""
    write_clients(tmp_path, {"north": {"blue": 3, "green": 3, "red": 3}, "south": {"green": 3}}, tests=1)
    return [str(tmp_path / name) for name in ("south", "north")]


def test_a_data_set_is_divided_with_test_and_validation_images_of_the_same_shares(tmp_path):
    splits = Splits(source_of((40, 20, 10), seed=0), source_of((9, 9, 9), seed=1), source_of((30, 30, 30), seed=2))
    clients = images.divided(splits, recipe_in(tmp_path, "--federated_clients=3"))
    assert [client.name for client in clients] == ["client00", "client01", "client02"]
    assert sum(client.counts for client in clients).tolist() == [40, 20, 10]
    for client in clients:
        for part, total in ((client.val, 27), (client.test, 90)):
            counts = np.bincount(part.labels, minlength=3) if part else np.zeros(3, int)
            there = {27: 9, 90: 30}[total]
            np.testing.assert_array_equal(counts, np.minimum((client.counts / 70 * total).astype(int), there))


def test_folders_of_clients_have_the_classes_of_all_together(tmp_path, folders):
    north, south = images.of_folders(
        recipe_in(tmp_path, f"--federated_client_dirs={','.join(folders)}"), workdir=tmp_path
    )
    assert (north.name, south.name) == ("north", "south") and north.class_names == south.class_names == CLASSES
    assert north.counts.tolist() == [3, 3, 3] and south.counts.tolist() == [0, 3, 0]
    assert south.test.labels.tolist() == [1] and south.val is None
    assert south.train.names[0] == "green/0.png"  # names of the images go along


@pytest.mark.parametrize("path", ["..", ".", "../north", "../north/"])
@pytest.mark.usefixtures("folders")
def test_a_client_has_the_name_of_its_folder_however_it_is_written(tmp_path, monkeypatch, path):
    folder = tmp_path / "north"
    monkeypatch.chdir(next(folder.iterdir()) if path == ".." else folder)
    client = images.of_folder(path, recipe_in(tmp_path), report=tmp_path / "skipped.txt")
    assert client.name == "north"


def test_a_list_of_classes_sets_their_order_and_refuses_others(tmp_path, folders):
    names = tmp_path / "classes.txt"
    names.write_text("red\nblue\ngreen\nwhite\n")
    flags = [f"--federated_client_dirs={','.join(folders)}", f"--class_names_file={names}"]
    north, south = images.of_folders(recipe_in(tmp_path, *flags), workdir=tmp_path)
    assert north.class_names == ("red", "blue", "green", "white")
    assert north.counts.tolist() == [3, 3, 3, 0] and south.counts.tolist() == [0, 0, 3, 0]
    names.write_text("red\nblue\n")
    with pytest.raises(ValueError, match=r"client south has the class 'green', which is not in the list .*class_names"):
        images.of_folder(folders[0], recipe_in(tmp_path, *flags), report=tmp_path / "skipped.txt")


@pytest.mark.parametrize("flag", ["--data=digits_lt", "--imbalance=5"])
def test_what_does_not_fit_a_folder_is_refused(tmp_path, folders, flag):
    with pytest.raises(ValueError, match="does not fit a client's own folder"):
        images.of_folder(folders[0], recipe_in(tmp_path, flag), report=tmp_path / "skipped.txt")


def test_two_folders_of_one_name_are_refused(tmp_path, folders):
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "south").rename(other / "north")
    flag = f"--federated_client_dirs={tmp_path / 'north'},{other / 'north'}"
    with pytest.raises(ValueError, match="two folders of the name 'north'"):
        images.of_folders(recipe_in(tmp_path, flag), workdir=tmp_path)
