"""What a bug report needs."""

import re
import tomllib

from helpers import ROOT

import deitlt_tf
from deitlt_tf import versions


def test_it_names_this_package_python_and_every_library(capsys):
    versions.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"deitlt_tf {deitlt_tf.__version__}" and lines[1].startswith("Python 3.")
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    printed = {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}
    for name in (re.match(r"[\w-]+", requirement)[0] for requirement in needed):
        assert printed[name] == versions.version(name) != "not installed"
    assert any(line.endswith("0 GPUs") for line in lines)


def test_a_package_that_is_not_there_is_no_error():
    assert versions.version("pip") != "not installed"
    assert versions.version("no-such-package-anywhere") == "not installed"
