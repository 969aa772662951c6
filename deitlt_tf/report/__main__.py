"""Report a finished run on one page: accuracy of CLS and DIST with intervals, curves, probes and pictures.

    python -m deitlt_tf.report --workdir=runs/first [--data_dir=...] [--probe_images=512]
    python -m deitlt_tf.report --compare=runs/first,runs/second

The first command writes report.html (one file, which loads nothing from the network) and report.json, the same numbers,
to the workdir. The second one compares runs on the same test images, each with the first one, and writes
comparison.html and comparison.json to the workdir of the first run.
Both need only the workdirs and the data that their flags.cfg names, and no GPU. Flags on the command line override
those of flags.cfg.
"""

import functools
import sys
from pathlib import Path

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe, *, compare: list[str], probe_images: int, sure: float = 0.95) -> None:
    from deitlt_tf.data import decode
    from deitlt_tf.devices.strategy import prepare
    from deitlt_tf.report import numbers

    prepare(**recipe.run.numerics())
    recipes = compared_recipes(recipe, compare)
    run = numbers.opened(recipe)
    if compare:
        name = "comparison"
        compute = functools.partial(numbers.comparison, [run, *map(numbers.opened, recipes[1:])])
    else:
        name = "report"
        compute = functools.partial(numbers.report, recipe, run, probe_images=probe_images, sure=sure)
    values, figures = decode.naming_bad_images(compute, run.splits, max_pixels=recipe.data.max_pixels)
    numbers.write(run.folder, name, values, figures)
    print(f"{run.folder / name}.html and {name}.json are written.")


def compared_recipes(recipe: Recipe, compare: list[str]) -> list[Recipe]:
    """The recipe, then the recipes of the other runs of --compare, with the flags of this command line.

    Raises ValueError where --compare names one run only.
    """
    folders = list(dict.fromkeys(Path(folder).resolve() for folder in (recipe.run.workdir, *compare)))
    if compare and len(folders) < 2:
        raise ValueError(f"--compare={','.join(compare)} names one run: a comparison takes two or more.")
    own = command_line.recipe_of(["report", f"--workdir={recipe.run.workdir}"], from_workdir=True).flags
    changed = {name: value for name, value in recipe.flags.items() if value != own[name]}
    recipes = [recipe]
    for folder in folders[1:]:
        other = command_line.recipe_of(["report", f"--workdir={folder}"], from_workdir=True)
        recipes.append(other.changed(**changed | {"workdir": str(folder)}))
    return recipes


def with_workdir(argv: list[str]) -> list[str]:
    """The arguments; --compare=D1,D2 without a workdir gets --workdir=D1, because D1 is the reference."""
    values = {name.lstrip("-"): value for name, _, value in (argument.partition("=") for argument in argv)}
    if values.get("compare") and "workdir" not in values:
        return [*argv, f"--workdir={values['compare'].split(',')[0]}"]
    return argv


def program() -> None:
    sys.argv = with_workdir(sys.argv)
    command_line.program(main, __doc__, from_workdir=True, takes=("compare", "probe_images", "sure"))


if __name__ == "__main__":
    program()
