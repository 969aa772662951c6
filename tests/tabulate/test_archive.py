"""Folders and .zip files."""

import zipfile

import pytest

from deitlt_tf.tabulate import archive


def test_folders_and_zips_are_alike(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("\ufeffä\r\n")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.write(folder / "a.txt", "a.txt")
    for path in (folder, tmp_path / "a.zip"):
        opened = archive.Archive(str(path))
        assert opened.names == ["a.txt"] and opened.read("a.txt") == "\ufeffä\r\n".encode()
        with opened.text("a.txt") as stream:
            assert stream.read() == "ä\r\n"
        with pytest.raises(ValueError, match=r"has no file b\.txt: it may be incomplete"):
            opened.read("b.txt")
        opened.close()


def test_names_do_not_lead_out_of_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.txt").write_text("x")
    with pytest.raises(ValueError, match=r"has no file \.\./secret\.txt"):
        archive.Archive(str(tmp_path / "folder")).read("../secret.txt")


def test_a_description_is_small(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SMALL", 5)
    (tmp_path / "a.txt").write_text("123456")
    with pytest.raises(ValueError, match=r"a\.txt is larger than 5 bytes"):
        archive.Archive(str(tmp_path)).read("a.txt")
