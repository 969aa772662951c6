"""What a finished run has learnt, on one page: who is the expert where, with intervals, curves, probes and pictures.

    python -m deitlt_tf.report --workdir=runs/first [--data_dir=...] [--probe_images=512]
    python -m deitlt_tf.report --compare=runs/first,runs/second

The first writes report.html (one file, no network) and report.json, the same numbers, into the workdir. The second puts
runs on the same test images side by side, with differences from the first in pairs, as comparison.html and .json there.
Needs nothing but the workdirs and the data that their flags.cfg name; flags after it win. No GPU.
"""

import sys
from pathlib import Path

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe, *, compare: list[str], probe_images: int) -> None:
    from deitlt_tf.data import decode
    from deitlt_tf.devices.strategy import prepare
    from deitlt_tf.report import numbers

    prepare(**recipe.run.numbers())
    recipes = compared_recipes(recipe, compare)
    run = numbers.opened(recipe)
    if compare:
        name, make = "comparison", lambda: numbers.comparison([run, *map(numbers.opened, recipes[1:])])
    else:
        name, make = "report", lambda: numbers.report(recipe, run, probe_images=probe_images)
    values, figures = decode.naming_bad_images(make, run.splits, max_pixels=recipe.data.max_pixels)
    numbers.write(run.folder, name, values, figures)
    print(f"{run.folder / name}.html and {name}.json are written.")


def compared_recipes(recipe: Recipe, compare: list[str]) -> list[Recipe]:
    """The recipe, then those of the other runs of --compare under what the command line set."""
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
    """--compare=D1,D2 alone means the run D1 compared with the others: --workdir=D1 is put in."""
    given = {name.lstrip("-"): value for name, _, value in (argument.partition("=") for argument in argv)}
    if given.get("compare") and "workdir" not in given:
        return [*argv, f"--workdir={given['compare'].split(',')[0]}"]
    return argv


def program() -> None:
    sys.argv = with_workdir(sys.argv)
    command_line.program(main, __doc__, from_workdir=True, takes=("compare", "probe_images"))


if __name__ == "__main__":
    program()
