"""The command as a user runs it: folders of two clients, killed and resumed; and what is refused at once."""

import json
import shlex
import signal
import subprocess
import sys
import time

import keras
import pytest
from helpers import ROOT
from helpers.federation import write_clients
from helpers.programs import SMALL, snapshot

from deitlt_tf import evaluate, federate

SETTINGS = shlex.split("--federated_rounds=2 --federated_epochs=1 --federated_batch_size=4 --federated_head_norm=.3")


CLIENTS = {"north": {"blue": 6, "green": 3, "red": 2}, "south": {"blue": 2, "green": 5}}


@pytest.mark.slow
@pytest.mark.parametrize("network", ["cnn", "vit"])
def test_a_whole_run_of_two_folders_repeats_and_is_evaluated(run, tmp_path, network):
    dirs = write_clients(tmp_path, CLIENTS)
    command = [federate, *SMALL, *SETTINGS, dirs, f"--federated_network={network}"]
    code, printed = run(*command, f"--workdir={tmp_path / 'run'}")
    assert code == 0, printed
    assert "2 clients of 7 to 11 training images" in printed and "generic GLA-FR" in printed
    again = run(*command, f"--workdir={tmp_path / 'again'}")
    assert again[0] == 0 and snapshot(tmp_path / "run") == snapshot(tmp_path / "again")
    # Thrown back to the first round.
    for path in (tmp_path / "again").rglob("000000002.npz"):
        path.unlink()
    code, printed = run(*command, f"--workdir={tmp_path / 'again'}")
    assert code == 0 and "going on after round 1 of 2" in printed
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "again")

    # Our other tools read the generic and the personal models.
    code, printed = run(evaluate, f"--workdir={tmp_path / 'run'}", f"--data_dir={tmp_path / 'north'}")
    assert code == 0 and "student" in printed, printed
    model = keras.models.load_model(tmp_path / "run/clients/south/student.keras")
    assert isinstance(model.output, dict) == (network == "vit")
    numbers = json.loads((tmp_path / "run/results.json").read_text())["federated"]
    assert numbers["class_names"] == ["blue", "green", "red"] and numbers["clients"]["south"]["counts"] == [2, 5, 0]
    code, printed = run(*command, f"--workdir={tmp_path / 'run'}", "--federated_lr=.1")
    assert code == 1 and "holds a run of another recipe: --federated_lr is '0.03' there and '0.1' here" in printed


@pytest.mark.slow
def test_a_run_killed_in_mid_round_goes_on_to_the_same_bits(tmp_path):
    # South trains long enough to be killed between the end of north's round and that of its own.
    dirs = write_clients(tmp_path, {"north": CLIENTS["north"], "south": {"blue": 40, "green": 20}})
    flags = [*SMALL, *SETTINGS, "--federated_epochs=10", dirs]
    command = [sys.executable, "-m", "deitlt_tf.federate", *flags, f"--workdir={tmp_path / 'run'}"]
    north = tmp_path / "run/clients/north/checkpoints/000000002.npz"
    with (tmp_path / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        while process.poll() is None and not north.exists():
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert [*(tmp_path / "run/checkpoints").glob("*.npz")] == [tmp_path / "run/checkpoints/000000001.npz"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "fedloge: going on after round 1 of 2" in printed
    command[-1] = f"--workdir={tmp_path / 'straight'}"
    subprocess.run(command, check=True, capture_output=True)
    assert snapshot(tmp_path / "run") == snapshot(tmp_path / "straight")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher_model=mdcs_resnet8"], "--teacher_model=mdcs_resnet8 cannot be shared by clients: choose one of"),
        (["--federated_network=vit", "--model=deit_huge"], "--model=deit_huge is unknown"),
        (["--eval_resize=256"], "--eval_resize=256 and --teacher_eval_resize=0 differ"),
        (["--strategy=mirrored"], "--strategy=mirrored has no use here"),
        (["--precision=mixed_float16"], "--precision=mixed_float16 is not offered for clients"),
        (["--federated_client_dirs=a,b", "--data=digits_lt"], "and --data=digits_lt is not"),
        (["--federated_client_dirs=a,b", "--imbalance=9"], "--imbalance is not imposed on --federated_client_dirs"),
        (["--federated_client_dirs=a"], "names one folder"),
        (["--federated_client_dirs=a,b"], "--federated_client_dirs: a is not a folder."),
        (["--federated_fraction=0"], "--federated_fraction=0 is not a number"),
    ],
)
def test_what_the_recipe_tells_is_refused_at_once(run, tmp_path, flags, message):
    code, printed = run(federate, f"--workdir={tmp_path / 'run'}", "--eval_resize=0", *flags)
    assert code == 1 and message in printed and not (tmp_path / "run").exists()


def test_a_workdir_is_needed(run):
    assert run(federate)[0] == 1


def test_recipes_of_federated_runs_are_accepted():
    from deitlt_tf.recipes import checks
    from deitlt_tf.recipes.command_line import recipe_of

    paths = sorted((ROOT / "configs").glob("federated_*.cfg"))
    assert len(paths) >= 2
    for path in paths:
        assert [*checks.federated_mistakes(recipe_of(["federate", f"--flagfile={path}"]))] == []
