"""What the README shows has to run."""

import re
from pathlib import Path

import keras
from helpers import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_example_in_user_code_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 25
    keras.utils.set_random_seed(0)
    exec(compile(code, "README.md", "exec"), {})
    assert "'mean':" in capsys.readouterr().out
    outputs = keras.models.load_model("student.keras").output
    assert set(outputs) == {"cls", "dist"}


def test_the_two_commands_come_first_and_name_what_exists():
    main_job, tests = blocks("bash")[:2]
    recipe = re.search(r"--flagfile=(\S+)", main_job).group(1)
    assert (ROOT / recipe).is_file()
    assert "pytest" in tests
    assert tests.splitlines()[-1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_files_that_are_named_are_there():
    for name in re.findall(r"`((?:configs/)?[a-z0-9_]+\.cfg)`", README):
        assert (ROOT / "configs" / Path(name).name).is_file(), name
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", README) + re.findall(r'src="([^"]+)"', README)
    assert len(linked) > 20
    for name in linked:
        assert (ROOT / name).exists(), name
