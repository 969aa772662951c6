"""onnxruntime-web in the package is the pinned one, or the command that gets it is named."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from deitlt_tf.demo import runtime


def test_the_runtime_is_the_pinned_one_or_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "FOLDER", tmp_path)
    name = next(iter(runtime.FILES))
    with pytest.raises(FileNotFoundError, match=r"is missing, .* python -m deitlt_tf\.demo\.runtime"):
        runtime.read(name)
    for body in (gzip.compress(b"another script"), b"no gzip at all"):
        (tmp_path / f"{name}.gz").write_bytes(body)
        with pytest.raises(ValueError, match=r"is damaged, or of another version.* python -m deitlt_tf\.demo\.runtime"):
            runtime.read(name)


def test_the_vendored_runtime_is_whole():
    assert all(runtime.read(name)[:2] == b"\x1f\x8b" for name in runtime.FILES)
    assert "MIT License" in (runtime.FOLDER / "LICENSE").read_text()


def package(folder: Path, body: bytes) -> None:
    """What `npm pack` leaves: an archive with each of the files."""
    with tarfile.open(folder / "onnxruntime-web.tgz", "w:gz") as archive:
        for name in runtime.FILES:
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))


def test_files_that_are_not_the_pinned_ones_are_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "FOLDER", tmp_path / "vendor")
    monkeypatch.setattr(runtime.subprocess, "run", lambda command, **_: package(Path(command[-1]), b"another script"))
    with pytest.raises(ValueError, match="is not that of onnxruntime-web"):
        runtime.fetch()
    assert not (tmp_path / "vendor").exists()


def test_the_pinned_files_are_written_the_same_each_time(tmp_path, monkeypatch):
    body = b"the script"
    digest = runtime.hashlib.sha256(body).hexdigest()
    monkeypatch.setattr(runtime, "FOLDER", tmp_path / "vendor")
    monkeypatch.setattr(runtime, "FILES", dict.fromkeys(runtime.FILES, digest))
    monkeypatch.setattr(runtime.subprocess, "run", lambda command, **_: package(Path(command[-1]), body))
    contents = []
    for _ in range(2):
        runtime.fetch()
        contents.append([path.read_bytes() for path in sorted((tmp_path / "vendor").iterdir())])
    assert contents[0] == contents[1]
    assert [gzip.decompress(runtime.read(name)) for name in runtime.FILES] == [body] * len(runtime.FILES)


def test_npm_that_fails_is_one_sentence(monkeypatch):
    def missing(command, **_):
        raise FileNotFoundError(2, "No such file or directory", "npm")

    monkeypatch.setattr(runtime.subprocess, "run", missing)
    with pytest.raises(OSError, match="npm could not pack onnxruntime-web"):
        runtime.fetch()
