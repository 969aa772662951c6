"""A real SuperLink and two real SuperNodes on this machine, with certificates and keys, started as the page tells.

They end with the weights of one process, and do so when a client or the server is killed in mid-round.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.federation import write_clients, write_flag_files

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")
needs_programs = pytest.mark.skipif(
    not (shutil.which("openssl") and shutil.which("ssh-keygen")), reason="openssl and ssh-keygen make the keys"
)
pytestmark = [pytest.mark.slow, needs_programs]

PAGE = (ROOT / "docs/how_to/federated.md").read_text()
CLIENTS = {"north": {"blue": 6, "green": 3, "red": 2}, "south": {"blue": 2, "green": 5}}
ROUNDS = 2
RECIPE = f"""
--federated_clients=2
--federated_rounds={ROUNDS}
--federated_epochs=1
--federated_batch_size=4
--federated_head_norm=0.3
--teacher_model=resnet8
--teacher_image_size=8
--teacher_padding=1
--image_size=8
--eval_resize=0
"""
PATIENCE = 600  # seconds for one step, on a busy machine


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, *, what: str):
    began = time.monotonic()
    while not (value := condition()):
        assert time.monotonic() - began < PATIENCE, f"no {what} after {PATIENCE} s"
        time.sleep(0.1)
    return value


def of_page(start: str) -> str:
    """The command of the page that starts with these words."""
    lines = re.sub(r"\\\n +", "", PAGE).splitlines()
    (command,) = [line.strip() for line in lines if line.startswith(f"    {start}")]
    return command


class Machines:
    """A SuperLink and a SuperNode for each client, started by the commands of the page; the addresses are loopback."""

    def __init__(self, root: Path):
        self.root, self.port = root, free_port()
        self.processes: dict[str, subprocess.Popen] = {}
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(root / "flower"),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.environment |= dict(pair.split("=") for pair in of_page("export FLWR_").split()[1:])
        (root / "flower").mkdir()
        connection = re.search(r"(    \[superlink\.together\]\n(?:    .+\n)+)", PAGE)
        assert connection
        (root / "flower/config.toml").write_text(self.local(textwrap.dedent(connection[1])))
        self.command(of_page("openssl req -x509 -newkey"))
        self.command(of_page("openssl req -x509 -CA"))
        self.start_link()
        for name in CLIENTS:
            self.make_key(name)
            self.command(of_page("flwr supernode register").replace("node_key", f"{name}_key"))
            self.start_node(name)

    def local(self, text: str) -> str:
        """A text of the page with the addresses and folders of this test."""
        text = text.replace("0.0.0.0", "127.0.0.1").replace("server.example.org", "localhost")
        return text.replace("9000", str(self.port)).replace("/srv/deitlt", str(self.root))

    def command(self, line: str) -> str:
        done = subprocess.run(
            self.local(line), shell=True, executable="/bin/bash", env=self.environment, cwd=self.root, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, name: str, *lines: str) -> subprocess.Popen:
        *before, last = (self.local(line) for line in lines)
        script = "; ".join([*before, f"exec {last}"])
        with (self.root / f"{name}.log").open("a") as file:
            self.processes[name] = subprocess.Popen(
                ["/bin/bash", "-c", script], env=self.environment, cwd=self.root, stdout=file, stderr=file,
                process_group=0,
            )  # fmt: skip
        return self.processes[name]

    def start_link(self) -> None:
        self.start("link", of_page("flower-superlink"))
        wait_for(self.listens, what="SuperLink")

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def make_key(self, name: str) -> None:
        self.command(of_page("ssh-keygen").replace("node_key", f"{name}_key"))

    def start_node(self, name: str) -> subprocess.Popen:
        line = of_page("flower-supernode").replace("node_key", f"{name}_key")
        line = line.replace('"north"', f'"{name}"').replace("node.cfg", f"{name}.cfg")
        return self.start(name, f"{line} --port={free_port()}")

    def run(self, name: str) -> subprocess.Popen:
        return self.start(name, of_page("APP="), of_page("flwr run $APP"))

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def stop(self) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):  # what is left of its group
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def machines(tmp_path_factory):
    root = tmp_path_factory.mktemp("machines")
    write_clients(root, CLIENTS)
    machines = Machines(root)
    yield machines
    machines.stop()


@pytest.fixture(scope="module")
def one_process(machines):
    """The workdir of the same run with all clients in one process."""
    write_flag_files(machines.root, CLIENTS, recipe=RECIPE, at=machines.root / "nowhere")
    dirs = ",".join(str(machines.root / name) for name in CLIENTS)
    flags = f"--flagfile=recipe.cfg --workdir=one --federated_client_dirs={dirs}"
    machines.command(f"python -m deitlt_tf.federate {flags}")
    return machines.root / "one"


@pytest.fixture
def at(machines, one_process, request):
    """A folder for the workdirs of server and clients in this test."""
    folder = machines.root / request.node.name
    write_flag_files(machines.root, CLIENTS, recipe=RECIPE, at=folder)
    return folder


def last_owner(workdir: Path) -> int | None:
    """The process that has a workdir, or had it last."""
    try:
        return json.loads((workdir / ".lock").read_text())["process"]
    except (OSError, ValueError):  # no process yet, or one that has just begun to write
        return None


def wait_for_round_2(at: Path) -> int:
    """The process of client south in round 2, while it trains."""
    wait_for((at / "server/checkpoints/000000001.npz").is_file, what="round 1")
    before = last_owner(at / "south")

    def process() -> int | None:
        owner = last_owner(at / "south")
        return owner if owner != before else None

    return wait_for(process, what="client of round 2")


def arrays(path: Path) -> dict[str, bytes]:
    with np.load(path) as archive:
        return {name: archive[name].tobytes() for name in archive.files if name != "note"}


def check_equal(at: Path, one: Path) -> None:
    """Server and clients have the bits of one process: weights, local heads and all numbers."""
    last = f"checkpoints/{ROUNDS:09d}.npz"
    assert arrays(at / "server" / last) == arrays(one / last)
    for name in CLIENTS:
        assert arrays(at / name / last) == arrays(one / "clients" / name / last)
        assert (at / name / "student.keras").is_file()
    ours, theirs = (json.loads((folder / "results.json").read_text())["federated"] for folder in (at / "server", one))
    assert ours | {"cpu_seconds": 0} == theirs | {"cpu_seconds": 0}


def test_two_nodes_end_with_the_weights_of_one_process(machines, one_process, at):
    machines.run("whole").wait(PATIENCE)
    assert "generic GLA-FR" in machines.log("whole"), machines.log("whole")[-3000:]
    check_equal(at, one_process)


def test_a_client_that_is_killed_in_mid_round_is_asked_again(machines, one_process, at):
    run = machines.run("client_killed")
    os.kill(wait_for_round_2(at), signal.SIGKILL)
    run.wait(PATIENCE)
    log = machines.log("client_killed")
    assert "client south: its process ended or was too slow to answer; it is asked again." in log, log[-3000:]
    check_equal(at, one_process)


def test_a_server_that_dies_in_mid_round_goes_on_when_it_is_started_again(machines, one_process, at):
    run = machines.run("server_killed")
    wait_for_round_2(at)
    for process in (last_owner(at / "server"), machines.processes["link"].pid):
        os.kill(process, signal.SIGKILL)
    machines.processes["link"].wait()
    run.terminate()
    assert not (at / "server/checkpoints/000000002.npz").exists()
    machines.start_link()
    machines.run("started_again").wait(PATIENCE)
    log = machines.log("started_again")
    assert "going on after round 1 of 2" in log and "generic GLA-FR" in log, log[-3000:]
    check_equal(at, one_process)


def test_a_node_whose_key_is_not_registered_is_refused(machines):
    machines.make_key("stranger")
    assert machines.start_node("stranger").wait(PATIENCE) != 0
    assert "Failed to activate SuperNode" in machines.log("stranger"), machines.log("stranger")
