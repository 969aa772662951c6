"""The house rule: one direction. Who may import whom of ours; everything else is a defect."""

import ast
from pathlib import Path

import pytest

import deitlt_tf

PACKAGE = Path(__file__).parent.parent / "deitlt_tf"

ALLOWED = {
    "graphs": set(),
    "data.storage": set(),
    "data.splits": set(),
    "data.folders": {"data.splits", "data.storage"},
    "data.listings": {"data.splits", "data.storage"},
    "data.packaged": {"data.splits"},
    "data.sources": {"data.splits", "data.folders", "data.listings", "data.packaged"},
    "data.decode": {"graphs"},
    "data.augment": {"graphs"},
    "data.pipeline": {"data.splits", "data.decode"},
    "models.kernels": {"graphs"},
    "models.vit": {"models.kernels"},
    "models.resnet": set(),
    "models.experts": {"models.resnet"},
    "models": {"models.vit", "models.resnet", "models.experts"},
    "data.headers": set(),
    "data.survey": {"data.headers", "data.splits", "data.storage"},
    "mixing": set(),
    "losses": set(),
    "sam": set(),
    "optimizers": set(),
    "metrics": set(),
    "cluster": set(),
    "loss_scale": set(),
    "devices": {"cluster", "loss_scale"},
    "teacher_labels": {"data.splits", "data.storage", "workdir"},
    "distill": {"graphs", "mixing", "losses", "metrics", "devices", "loss_scale", "models.vit"},
    "teacher": {"losses", "sam", "devices", "loss_scale"},
    "paco": {"losses", "devices"},
    "mdcs": {"losses", "devices"},
    "glmc": {"mixing"},
    "official": {"models", "models.vit"},
    "class_order": set(),
    "torch_files": set(),
    "probes": {"models.vit"},
    "answers": {"devices", "distill", "metrics", "mixing"},
    "intervals": {"metrics"},
    "findings": {"answers", "intervals", "metrics", "probes"},
    "figures": set(),
    "pages": {"answers", "figures", "findings", "metrics", "probes"},
    "workdir": set(),
    "finished": {"metrics", "workdir"},
    "onnx_graph": {"metrics", "models.vit", "models.resnet"},
    "local_server": set(),
    "vendor": set(),
    "loop": {"devices", "teacher_labels", "workdir"},
    "options": set(),
}
PROGRAMS = {"train", "train_teacher", "evaluate", "inspect_data", "to_tfds", "import_torch", "report", "demo"}
SHARED_BY_PROGRAMS = {"assemble"}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, as names below the package."""
    ours = {module_of(file) for file in PACKAGE.rglob("*.py")}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        found |= {name.removeprefix("deitlt_tf.") for name in names if name.startswith("deitlt_tf.")} & ours
    packages = {name for name in found if any(other.startswith(name + ".") for other in found)}
    return found - packages


def test_every_module_has_a_rule():
    modules = {module_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "data"}
    assert modules == ALLOWED.keys() | PROGRAMS | SHARED_BY_PROGRAMS
    assert {name for name in modules - PROGRAMS if "." not in name} | {"data"} == set(deitlt_tf.MODULES)


@pytest.mark.parametrize("module", ALLOWED)
def test_libraries_import_only_what_comes_before_them(module):
    path = PACKAGE / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert imports_of(path) <= ALLOWED[module]


def test_only_programs_read_flags():
    readers = {module_of(path) for path in PACKAGE.rglob("*.py") if "options" in imports_of(path)}
    assert readers <= PROGRAMS | SHARED_BY_PROGRAMS
    assert not [path for path in PACKAGE.rglob("*.py") if "absl" in path.read_text() and path.name != "options.py"]
