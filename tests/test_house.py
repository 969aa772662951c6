"""The house rules: which room may import which, who knows the flags, and where the tests of a module lie."""

import ast
import re
from pathlib import Path

import pytest
from helpers import ROOT, TESTS

import deitlt_tf

PACKAGE = ROOT / "deitlt_tf"
HOUSE = (ROOT / "docs" / "contribute" / "house.md").read_text()

# Of each room or file of the library: what it may import besides itself.
ALLOWED: dict[str, set[str]] = {
    "recipes": set(),
    "losses": set(),
    "mixing": set(),
    "sam": set(),
    "optimizers": set(),
    "graphs": set(),
    "data": {"graphs"},
    "models": {"graphs"},
    "devices": {"graphs"},
    "objectives": {"losses", "mixing", "devices"},
    "guidance": {"models"},
}
ALLOWED |= {"step": {"losses", "models", "devices"}}
STEP = {"step", "losses", "mixing", "sam", "models", "devices", "objectives"}
ALLOWED |= {"distill": STEP | {"guidance"}, "teacher": STEP}
ALLOWED |= {"runs": {"data", "models", "devices"}}
ALLOWED |= {"evaluation": {"runs", "data", "models", "devices", "mixing"}}
ALLOWED |= {"interop": {"models", "runs", "data", "evaluation"}}
ALLOWED |= {"training": {*ALLOWED}}
PAGES = {"evaluation", "runs", "data", "models", "losses", "recipes"}
ALLOWED |= {"serving": PAGES, "report": PAGES, "inspect_data": PAGES}
ALLOWED |= {"tabulate": {"data", "runs", "recipes"}}
ALLOWED |= {"fetch": {"data", "runs", "inspect_data", "recipes"}}
ALLOWED |= {"demo": {"serving", "evaluation", "runs"}}
ALLOWED |= {"federated": {"training", *ALLOWED["training"]}}

# What a user types. They may import anything, and nobody imports them.
COMMANDS = {
    *("quick", "train", "train_teacher", "evaluate", "federate", "to_tfds", "import_torch", "versions", "vendor"),
    *("to_onnx", "to_litert", "to_saved_model"),
    *("federated.client_app", "federated.server_app"),  # what Flower starts
    *("inspect_data.__main__", "fetch.__main__", "tabulate.__main__", "report.__main__", "demo.__main__"),
}


# Modules whose tests do not lie in tests/ROOM/test_MODULE.py, and where they lie.
TESTED_IN = {
    **dict.fromkeys(("train", "train_teacher", "evaluate"), "test_programs.py"),
    **{name: f"serving/test_{name}.py" for name in ("to_onnx", "to_litert", "to_saved_model")},
    **{f"recipes.{name}": "recipes/test_recipe.py" for name in ("data", "views", "federated", "run")},
    "import_torch": "interop/test_imports.py",
    "quick": "training/test_quick.py",
    "fetch.__main__": "fetch/test_whole.py",
    "tabulate.__main__": "tabulate/test_whole.py",
    "runs": "runs/test_files.py",
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}
LIBRARY = [module for module in MODULES if module not in COMMANDS]


def room(module: str) -> str:
    return module.partition(".")[0]


def names_of(path: Path) -> list[str]:
    """Dotted names that a file imports anywhere: `a.b` and `a.b.c` of `from a.b import c`."""
    nodes = [*ast.walk(ast.parse(path.read_text()))]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def packages_of(path: Path) -> set[str]:
    """Names of the packages that a file imports anywhere."""
    return {name.partition(".")[0] for name in names_of(path)}


def imports_of(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere, as names below the package."""
    ours = {name.removeprefix("deitlt_tf.") for name in names_of(path) if name.startswith("deitlt_tf.")}
    imported = ours & MODULES.keys()
    packages = {name for name in imported if any(other.startswith(name + ".") for other in imported)}
    return imported - packages


def test_every_module_has_a_room():
    assert {room(module) for module in LIBRARY} == ALLOWED.keys()
    assert MODULES.keys() >= COMMANDS
    assert {*deitlt_tf.MODULES} == {*ALLOWED}


@pytest.mark.parametrize("module", LIBRARY)
def test_a_room_imports_only_what_the_house_allows(module):
    imported = imports_of(MODULES[module])
    assert not imported & COMMANDS
    assert {room(name) for name in imported} - {room(module)} <= ALLOWED[room(module)]


@pytest.mark.parametrize("script", sorted((ROOT / "export").glob("*.py")), ids=lambda path: path.name)
def test_exports_are_commands_of_the_package(script):
    assert imports_of(script) == {script.stem}


def test_only_recipes_know_the_flags():
    """The library takes keywords and settings; a namespace of flags ends at the commands."""
    readers = {module for module, path in MODULES.items() if "recipes.flags" in imports_of(path)}
    assert readers <= {"recipes.command_line", "recipes.recipe"}
    parsers = {module for module, path in MODULES.items() if "absl" in packages_of(path)}
    assert parsers == {"recipes.flags", "recipes.command_line"}
    assert not [module for module in LIBRARY if "SimpleNamespace" in MODULES[module].read_text()]


def test_rooms_say_what_they_are_for():
    for path in PACKAGE.glob("**/__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


# ---- tests -----------------------------------------------------------------------------------------------------------


def defines_something(path: Path) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(path.read_text()).body)


def mirrored(module: str) -> Path:
    """tests/data/test_decode.py of data.decode, tests/models/test_models.py of the package models."""
    parents, name = module.split(".")[:-1], module.split(".")[-1].strip("_")
    if MODULES[module].name == "__init__.py":
        parents.append(name)
    return TESTS.joinpath(*parents, f"test_{name}.py")


@pytest.mark.parametrize("module", [module for module, path in MODULES.items() if defines_something(path)])
def test_tests_lie_as_the_code_does(module):
    assert (TESTS / TESTED_IN.get(module, mirrored(module))).is_file()


def test_no_module_has_two_places_for_its_tests():
    assert TESTED_IN.keys() <= MODULES.keys()
    assert not [module for module in TESTED_IN if mirrored(module).is_file()]


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_file_imports_another(path):
    """What two of them need is in tests/helpers."""
    others = {other.stem for other in TESTS.rglob("test_*.py")} | {"conftest", "tests"}
    assert not {part for name in names_of(path) for part in name.split(".")} & others


def test_the_page_of_the_house_names_every_module():
    """Each in the block of its room, which begins with a line `  room/ ...`."""
    tree = HOUSE[HOUSE.index("```text") : HOUSE.index("configs/ ")]
    blocks = re.split(r"^  (?=\w+/ )", tree, flags=re.MULTILINE)[1:]
    rooms = {block.partition("/")[0]: block for block in blocks}
    assert rooms.keys() == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    hidden = {"vendor"}  # kept under its old name for one release
    for module in {*MODULES} - hidden:
        *_, name = module.removesuffix(".__main__").split(".")
        inside = rooms[room(module)] if "." in module and not module.endswith("__main__") else tree
        assert re.search(rf"\b{name}\b", inside), module


def test_the_page_of_the_house_says_who_may_import_whom():
    """A cell of its table names rooms; "the same": those of the row before, "all above": the rows before it."""
    table = HOUSE[HOUSE.index("| room | may import |") : HOUSE.index("## Where a new line belongs")]
    said: dict[str, set[str]] = {}
    before: set[str] = set()
    for line in table.strip().splitlines()[2:]:
        rooms, may = (re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split(" | "))
        allowed = {name for name in may if name in ALLOWED}
        allowed |= before if "the same" in line else {*said} if "all above" in line else set()
        allowed |= {name for other in may if "all that it may import" in line for name in ALLOWED[other]}
        said |= dict.fromkeys((name for name in rooms if name in ALLOWED), allowed)
        before = allowed
    assert said == ALLOWED
