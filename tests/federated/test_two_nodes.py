"""A real SuperLink and two real SuperNodes on this machine: killed twice, and they end as one process does."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.federation import write_clients

from deitlt_tf.federated import APP

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")

PROGRAMS = Path(sys.executable).parent
CLIENTS = {"north": {"blue": 6, "green": 3, "red": 2}, "south": {"blue": 2, "green": 5}}
RECIPE = """
--federated_clients=2
--federated_rounds=3
--federated_epochs=1
--federated_batch_size=4
--federated_head_norm=0.3
--teacher_model=resnet8
--teacher_image_size=8
--teacher_padding=1
--image_size=8
--eval_resize=0
"""
PATIENCE = 900  # seconds for one step, on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, *, what: str):
    began = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() - began < PATIENCE, f"no {what} after {PATIENCE} s"
        time.sleep(0.2)
    return value


def owner(folder: Path, *, but: int | None = None) -> int | None:
    """The process that holds a folder, or None. but: a process that may still be about to end."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        process = json.loads((folder / ".lock").read_text())["process"]
        os.kill(process, 0)
        return process if process != but else None
    return None


class Machines:
    """A SuperLink and the nodes of a folder, as people start them on a loopback address."""

    def __init__(self, root: Path):
        self.root, self.port = root, free_port()
        self.environment = os.environ | {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(root / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        (root / "flower").mkdir()
        address = f'address = "127.0.0.1:{self.port}"\ninsecure = true\n'
        connection = f'[superlink]\ndefault = "trial"\n[superlink.trial]\n{address}'
        (root / "flower" / "config.toml").write_text(connection)
        offline = "--disable-runtime-dependency-installation"
        self.processes = [self.start("flower-superlink", "--insecure", f"--port={self.port}", offline, log="link")]
        wait_for(self.listens, what="SuperLink")
        for name in CLIENTS:
            node = f'name="{name}" flagfile="{root / name}.cfg"'
            link = ("--insecure", f"--superlink=127.0.0.1:{self.port}", f"--port={free_port()}")
            self.processes.append(self.start("flower-supernode", *link, f"--node-config={node}", log=name))

    def start(self, program: str, *arguments: str, log: str) -> subprocess.Popen:
        with (self.root / f"{log}.log").open("w") as file:
            command = [str(PROGRAMS / program), *arguments]
            return subprocess.Popen(command, env=self.environment, cwd=self.root, stdout=file, stderr=file)

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def run(self, log: str) -> subprocess.Popen:
        config = f'flagfile="{self.root / "server.cfg"}" timeout={PATIENCE}'
        return self.start("flwr", "run", str(APP), "trial", f"--run-config={config}", "--stream", log=log)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


@pytest.fixture
def machines(tmp_path):
    write_clients(tmp_path, CLIENTS)
    (tmp_path / "classes.txt").write_text("blue\ngreen\nred\n")
    (tmp_path / "recipe.cfg").write_text(RECIPE)
    own = "--flagfile=recipe.cfg\n--workdir={0}/at_{1}\n"
    (tmp_path / "server.cfg").write_text(own.format(tmp_path, "server"))
    for name in CLIENTS:
        images = f"--data_dir={tmp_path / name}\n--class_names_file={tmp_path / 'classes.txt'}\n"
        (tmp_path / f"{name}.cfg").write_text(own.format(tmp_path, name) + images)
    machines = Machines(tmp_path)
    yield machines
    machines.stop()


def arrays(path: Path) -> dict[str, bytes]:
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive.files if name != "note"}


@pytest.mark.slow
def test_two_nodes_end_with_the_weights_of_one_process_whatever_is_killed(machines, tmp_path):
    at_server, at_south = tmp_path / "at_server", tmp_path / "at_south"
    rounds = at_server / "checkpoints"

    # A client is killed in round 2.
    first = machines.run("first")
    processes: list[int] = []  # of south until round 1 is complete; that of round 2 begins afterwards

    def round_1() -> bool:
        process = owner(at_south)
        complete = (rounds / "000000001.npz").is_file()
        if process and not complete:
            processes.append(process)
        return complete

    wait_for(round_1, what="round 1")
    last = processes[-1] if processes else None
    os.kill(wait_for(lambda: owner(at_south, but=last), what="client of round 2"), signal.SIGKILL)
    first.wait(PATIENCE)
    text = (tmp_path / "first.log").read_text()
    assert "round 2: client south failed: ClientApp stopped responding." in text, text[-3000:]
    assert "The rounds before are saved" in text and not (rounds / "000000002.npz").exists()

    # The server is killed in round 3.
    second = machines.run("second")
    wait_for(lambda: (rounds / "000000002.npz").is_file(), what="round 2")
    os.kill(wait_for(lambda: owner(at_server), what="server of round 3"), signal.SIGKILL)
    wait_for(lambda: not owner(at_south) and not owner(tmp_path / "at_north"), what="end of the clients' round")
    second.terminate()

    third = machines.run("third")
    wait_for(lambda: third.poll() is not None, what="end of the run")
    text = (tmp_path / "third.log").read_text()
    assert "generic GLA-FR" in text, text[-3000:]

    one = tmp_path / "one"
    flags = [f"--flagfile={tmp_path / 'recipe.cfg'}", f"--workdir={one}"]
    flags += [f"--federated_client_dirs={','.join(str(tmp_path / name) for name in CLIENTS)}"]
    command = [sys.executable, "-m", "deitlt_tf.federate", *flags]
    subprocess.run(command, env=machines.environment, cwd=tmp_path, check=True, capture_output=True)
    assert arrays(rounds / "000000003.npz") == arrays(one / "checkpoints/000000003.npz")
    for name in CLIENTS:
        last = "checkpoints/000000003.npz"
        assert arrays(tmp_path / f"at_{name}" / last) == arrays(one / "clients" / name / last)
        assert (tmp_path / f"at_{name}" / "student.keras").is_file()
    ours, theirs = (json.loads((folder / "results.json").read_text())["federated"] for folder in (at_server, one))
    assert {**ours, "cpu_seconds": 0} == {**theirs, "cpu_seconds": 0}
    shutil.rmtree(tmp_path / "flower")
