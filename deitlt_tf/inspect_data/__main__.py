"""Check a data set before days of training: missing, unreadable and doubled images, the class profile, the weights.

    python -m deitlt_tf.inspect_data --flagfile=configs/places_lt.cfg --data_dir=places [--workdir=D] [--decode]

takes the recipe of a training run and tells what that run would meet; exit code 1 if it would fail. Of an image, only
header and end are read, or all of it with --decode. With --workdir=D all findings are in D/inspect.json, the class
profile is D/profile.svg.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe, *, decode: bool) -> None:
    import numpy as np

    from deitlt_tf.inspect_data import findings, summary
    from deitlt_tf.inspect_data.words import number_of
    from deitlt_tf.runs.files import replacing, write_json

    report = findings.inspect(recipe, every_image=decode)
    print("\n".join(summary.lines(report)))
    if recipe.run.workdir:
        folder = recipe.run.folder
        write_json(folder / "inspect.json", report)
        with replacing(folder / "profile.svg") as path:
            summary.plot(np.array(report["classes"]["train"]), path)
        print(f"\nwritten: {folder / 'inspect.json'}, {folder / 'profile.svg'}")
    if report["errors"]:
        raise ValueError(f"training would fail: see {number_of(len(report['errors']), 'error')} above.")


def program() -> None:
    command_line.program(main, __doc__, takes=("decode",))


if __name__ == "__main__":
    program()
