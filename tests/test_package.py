"""What is installed without a checkout: recipes, commands and exports, from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import ROOT

import deitlt_tf

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FIRST_STEPS = ("--epochs=2", "--reweight_epoch=1", "--nobaseline")
FIRST_STEPS += ("--teacher_epochs=1", "--teacher_reweight_epoch=-1", "--teacher_drops=")


def test_every_room_is_packaged():
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in ROOT.glob("deitlt_tf/**/__init__.py")}
    assert {*PROJECT["tool"]["setuptools"]["packages"]} == rooms | {"deitlt_tf.configs"}


def in_another_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    settings = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"} | environment
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=120)


SENTENCE = "ImportError: deitlt_tf needs Keras on TensorFlow, and this Keras is set to run on {} ({}): put "


@pytest.mark.parametrize("code", ["import deitlt_tf, keras", "import deitlt_tf.models"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_of_keras_is_refused_with_where_it_is_set(code, backend, tmp_path):
    done = in_another_process(code, KERAS_BACKEND=backend)
    assert done.returncode == 1 and SENTENCE.format(backend, "the environment has KERAS_BACKEND") in done.stderr
    (tmp_path / "keras.json").write_text(json.dumps({"backend": backend}))
    done = in_another_process(code, KERAS_HOME=str(tmp_path))
    assert done.returncode == 1 and SENTENCE.format(backend, f"{tmp_path / 'keras.json'} has it") in done.stderr


def test_a_keras_that_is_there_already_is_looked_at():
    code = (
        "import sys, types, deitlt_tf; sys.modules['keras'] = types.ModuleType('keras'); sys.modules['keras'].config ="
    )
    code += " types.SimpleNamespace(backend=lambda: 'jax'); del sys.modules['deitlt_tf']; import deitlt_tf"
    done = in_another_process(code)
    assert done.returncode == 1 and "this Keras is set to run on jax" in done.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", None])
def test_a_keras_json_without_a_backend_means_tensorflow(text, tmp_path):
    if text is not None:
        (tmp_path / "keras.json").write_text(text)
    code = "import deitlt_tf; print(deitlt_tf._backend_setting())"
    assert in_another_process(code, KERAS_HOME=str(tmp_path)).stdout == "tensorflow\n"
    assert in_another_process(code, KERAS_HOME=str(tmp_path), KERAS_BACKEND="").stdout == "tensorflow\n"


def test_the_version_is_written_twice_and_alike():
    assert PROJECT["project"]["version"] == deitlt_tf.__version__
    assert f"## {deitlt_tf.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {deitlt_tf.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_scripts_lead_to_functions():
    for entry in PROJECT["project"]["scripts"].values():
        module, _, function = entry.partition(":")
        file = ROOT / Path(*module.split(".")).with_suffix(".py")
        assert f"def {function}(" in file.read_text(), entry


def test_the_modules_of_before_are_reached_by_their_old_names():
    for name, new in deitlt_tf.MOVED.items():
        with pytest.warns(DeprecationWarning, match=f"deitlt_tf.{name} is deitlt_tf.{new} now"):
            module = getattr(deitlt_tf, name)
        assert module.__name__ == f"deitlt_tf.{new}"


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of a new environment with the wheel in it, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"  # a copy, because setuptools puts into a wheel what an earlier build left in build/
    for name in ("deitlt_tf", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(source)], check=True)
    (wheel,) = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    files = {f"deitlt_tf/configs/{path.name}" for path in (source / "configs").iterdir()}
    files |= {str(path.relative_to(source)) for path in (source / "deitlt_tf").rglob("*") if path.is_file()}
    assert len(files) > 200 and not files - {*names}
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    # A path line, which does not run the .pth files there: the editable installation of this environment stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel], check=True)
    return python


@pytest.mark.slow
def test_the_demo_and_an_export_run_from_an_empty_folder(python, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = run(python, "-c", "import deitlt_tf; print(deitlt_tf.__version__, deitlt_tf.__file__)")
    assert where.startswith(f"{deitlt_tf.__version__} {python.parents[1]}")
    run(python, "-m", "deitlt_tf.train", "--flagfile=digits_lt.cfg", "--workdir=run", *FIRST_STEPS)
    assert (tmp_path / "run" / "student.keras").is_file()
    run(python.parent / "deitlt-to-onnx", "--workdir=run", "--check_images=20")
    assert (tmp_path / "run" / "student.onnx").is_file()
    assert f"deitlt_tf {deitlt_tf.__version__}" in run(python, "-m", "deitlt_tf.versions")
