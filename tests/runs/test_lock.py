"""One process at a time in a workdir; whatever ends it, the folder is free again."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from deitlt_tf.runs import lock


@pytest.fixture
def other(tmp_path):
    """A process that holds tmp_path and waits."""
    code = (
        "import runpy, pathlib, sys, time\n"
        f"with runpy.run_path({lock.__file__!r})['locked'](pathlib.Path({str(tmp_path)!r})):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_folder_is_free_again_after_the_block(tmp_path):
    for _ in range(2):
        with (
            lock.locked(tmp_path / "run"),
            pytest.raises(ValueError, match=f"run is in use by process {os.getpid()} on .*workdir"),
            lock.locked(tmp_path / "run"),
        ):
            pass
    with pytest.raises(KeyError), lock.locked(tmp_path / "run"):
        raise KeyError
    with lock.locked(tmp_path / "run"):
        pass


def test_a_folder_that_was_only_locked_is_removed_again(tmp_path):
    with pytest.raises(KeyError), lock.locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
        raise KeyError
    assert not (tmp_path / "run").exists()
    (tmp_path / "empty").mkdir()  # was there before
    for name in ("run", "empty"):
        with lock.locked(tmp_path / name):
            if name == "run":
                (tmp_path / name / "flags.cfg").touch()
    assert {path.name for path in tmp_path.rglob("*")} == {"run", "empty", lock.FILE, "flags.cfg"}


def test_another_process_is_named_and_leaves_nothing_when_it_is_killed(other, tmp_path):
    with pytest.raises(ValueError, match=f"in use by process {other.pid} on "), lock.locked(tmp_path):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait(timeout=30)
    with lock.locked(tmp_path):
        pass


def test_an_owner_that_has_not_written_its_name_is_another_process(tmp_path):
    with lock.locked(tmp_path):
        (tmp_path / lock.FILE).write_text("")
        with pytest.raises(ValueError, match="in use by another process"), lock.locked(tmp_path):
            pass


def test_without_locks_of_the_file_system_nothing_is_held(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with lock.locked(tmp_path), lock.locked(tmp_path):
        pass


def test_a_process_is_alive_until_it_has_ended():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait(timeout=30)
    assert lock.is_alive(os.getpid()) and lock.is_alive(1) and not lock.is_alive(ended.pid)
