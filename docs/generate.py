"""What MkDocs builds beyond docs/*.md: the reference pages, and texts that other files of the repository hold.

- reference/command_line.md comes from `deitlt_tf.recipes.flags` and the docstrings of the programs,
- reference/recipes.md from configs/*.cfg, reference/api/*.md from MODULES, with mkdocstrings.
- A line `[text](../../FILE) <!-- include: FILE -->` or `... <!-- include: FILE#NAME -->` becomes that file, or its part
  between `<!-- NAME -->` and `<!-- /NAME -->`. The text has one home; who reads docs/ on a code host sees the link.
- A link to a file outside docs/ works on a code host. The site does not hold the file and shows its path.

TensorFlow is not imported here.
"""

import ast
import html
import itertools
import re
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
MODULES = (
    "distill", "teacher", "losses", "mixing", "sam", "optimizers", "models", "models.vit", "models.resnet",
    "models.efficientnet", "models.features", "interop.backbones", "evaluation.feature_store", "evaluation.review",
    "data.sources", "data.augment", "data.randaugment", "data.pipeline", "evaluation.metrics", "evaluation.intervals",
    "evaluation.probes", "federated.etf", "federated.heads", "federated.updates", "federated.partition",
    "serving.priors", "recipes.recipe",
)  # fmt: skip
INCLUDE = re.compile(r"^\[.+\]\(.+\) <!-- include: (?P<file>[^\s#]+)(#(?P<part>\w+))? -->$", re.MULTILINE)
OUTSIDE = re.compile(r"\[(?P<text>[^\]\n]+)\]\((?:\.\./)+(?P<path>(?!\.)[^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, before Contribute."""
    api = [{f"deitlt_tf.{module}": f"reference/api/{module}.md"} for module in MODULES]
    reference = [
        {"Command line": "reference/command_line.md"},
        {"Recipes": "reference/recipes.md"},
        {"Python API": [{"Overview": "reference/api/index.md"}, *api]},
    ]
    config.nav = [*config.nav[:-1], {"Reference": reference}, config.nav[-1]]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {"reference/command_line.md": command_line(), "reference/recipes.md": recipes(), **api()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    depth = len(Path(page.file.src_uri).parent.parts)

    def shown(link: re.Match) -> str:
        """A link that climbs above docs/ becomes the path of its file; others stay."""
        if link[0].count("../") <= depth:
            return link[0]
        if not (ROOT / link["path"].partition("#")[0]).exists():
            raise ValueError(f"{page.file.src_uri} links to {link['path']}, which is not in the repository.")
        plain = link["text"].strip("`")
        return f"`{link['path']}`" if plain.endswith(link["path"]) else f"{link['text']} (`{link['path']}`)"

    markdown = INCLUDE.sub(lambda match: included(match["file"], match["part"]), markdown)
    return OUTSIDE.sub(shown, markdown)


def included(file: str, part: str | None) -> str:
    """A file of the repository, or its part between two comments. Raises ValueError if there is no such part."""
    text = (ROOT / file).read_text()
    if part is None:
        return text
    match = re.search(rf"<!-- {part} -->\n(.*?)<!-- /{part} -->", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{file} has no part between <!-- {part} --> and <!-- /{part} -->.")
    return match[1]


# --- the command line


def command_line() -> str:
    """Every program, the flags that are changed first, and all flags under their headings."""
    from deitlt_tf.recipes import flags

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    script_of = {target.partition(":")[0].removesuffix(".__main__"): name for name, target in scripts.items()}
    del script_of["deitlt_tf.versions"]  # it has no flags
    lines = [
        "# Command line",
        "This page is generated from the programs and their flags. `--help` of a program shows the flags that people",
        "change first, `--helpfull` all of them. Every option is written `--name=value`; a switch is `--name` or",
        "`--noname`. `--flagfile=FILE` takes in a recipe; later values win. A flag file that is not found is looked",
        "for among the recipes of the package.",
        "",
        "## Change these first",
        "",
        *table(flags, flags.FIRST),
        "## Programs",
        "",
    ]
    for module, script in script_of.items():
        name = module.removeprefix("deitlt_tf.")
        doc, takes = program(name)
        lines += [f"### {name}", "", f"    python -m {module} --help", f"    {script} --help", "", markdown_of(doc), ""]
        if takes:
            lines += ["Flags that belong to this program:", "", *table(flags, takes)]
    lines += ["## All flags", ""]
    for heading, names in flags.GROUPS.items():
        lines += [f"### {heading[:1].upper()}{heading[1:]}", "", *table(flags, names, anchors=True)]
    return "\n".join(lines)


def program(name: str) -> tuple[str, tuple[str, ...]]:
    """Docstring of a program, and the flags of its own: what it hands over as `takes`."""
    path = ROOT / "deitlt_tf" / f"{name}.py"
    tree = ast.parse((path if path.is_file() else path.with_suffix("") / "__main__.py").read_text())
    values = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            if keyword.arg == "takes":
                value = keyword.value
                value = values[value.id] if isinstance(value, ast.Name) else value
                return ast.get_docstring(tree) or "", tuple(ast.literal_eval(value))
    return ast.get_docstring(tree) or "", ()


def table(flags: ModuleType, names: tuple[str, ...], *, anchors: bool = False) -> list[str]:
    rows = ["| flag | default | meaning |", "| --- | --- | --- |"]
    for name in names:
        flag = flags.FLAGS[name]
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        shown = {"": "", "None": ""}.get(str(default), f"`{default}`")
        anchor = f'<span id="{name}"></span>' if anchors else ""
        choices, text = re.match(r"(?:<([^>]*)>: )?(.*)", flag.help, re.DOTALL).groups()
        meaning = cell(text) + (f" One of {', '.join(f'`{c}`' for c in choices.split('|'))}." if choices else "")
        rows.append(f"| {anchor}`--{name}` | {shown} | {meaning} |")
    return [*rows, ""]


def cell(text: str) -> str:
    return plain(" ".join(text.split())).replace("|", "&#124;")


def plain(text: str) -> str:
    """Text that Markdown shows as it is, except for `code`."""
    parts = re.split(r"(`[^`\n]+`)", text)
    escaped = [re.sub(r"([*_\[\]])", r"\\\1", html.escape(part, quote=False)) for part in parts[::2]]
    parts[::2] = escaped
    return "".join(parts)


# --- recipes


def recipes() -> str:
    """Every file of configs/: its opening comment as text, then its flags."""
    paths = sorted((ROOT / "configs").glob("*.cfg"), key=lambda path: (shared(path), natural(path.name)))
    lines = [
        "# Recipes",
        "",
        "This page is generated from the recipes themselves. Each opens with a note: what it reproduces, the published",
        "numbers, where its data comes from and how the files have to lie. Which one to take:",
        "[Choose a recipe](../how_to/recipe.md).",
        "",
    ]
    for path in paths:
        note, rest = note_and_flags(path.read_text())
        lines += [f"## {path.name}", "", markdown_of(note), "", "```cfg", rest, "```", ""]
    return "\n".join(lines)


def shared(path: Path) -> bool:
    """Whether other recipes take this one in: teachers, and what all have in common."""
    return path.name.startswith(("teacher_", "base"))


def natural(name: str) -> list[str | int]:
    """A key that sorts cifar10 before cifar100."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def note_and_flags(text: str) -> tuple[str, str]:
    """The comment at the top without its #, and the remaining lines."""
    lines = text.splitlines()
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    note = "\n".join(line[1:].removeprefix(" ") for line in lines[:end])
    return note, "\n".join(lines[end:]).strip()


def markdown_of(text: str) -> str:
    """Free text as Markdown: lines that are indented by two or more become a block of code."""
    lines: list[str] = []
    for indented, group in itertools.groupby(text.splitlines(), key=lambda line: line.startswith("  ")):
        block = "\n".join(group)
        lines += ["", "```text", textwrap.dedent(block), "```", ""] if indented else [plain(block)]
    return "\n".join(lines)


# --- the Python API


def api() -> dict[str, str]:
    pages = {}
    rows = []
    for module in MODULES:
        path = ROOT / "deitlt_tf" / Path(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
        rows.append(f"| [`deitlt_tf.{module}`]({module}.md) | {cell(first)} |")
        members = "\n    options:\n      members: [build]" if module == "models" else ""
        pages[f"reference/api/{module}.md"] = f"::: deitlt_tf.{module}{members}\n"
    lines = [
        "# Python API",
        "",
        "Generated from the docstrings. An example that uses most of it: [Use it from Python](../../how_to/python.md).",
        "",
        "| module | what it has |",
        "| --- | --- |",
        *rows,
        "",
    ]
    pages["reference/api/index.md"] = "\n".join(lines)
    return pages
