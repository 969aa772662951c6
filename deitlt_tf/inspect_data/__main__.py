"""Check a data set before days of training: missing, unreadable and duplicate images, class counts, class weights.

    python -m deitlt_tf.inspect_data --flagfile=configs/places_lt.cfg --data_dir=places [--workdir=D] [--decode]

takes the recipe of a training run and reports what would stop that run; then the exit code is 1. Only the header and
the end of each image are read, with --decode the whole image. --workdir=D writes all findings to D/inspect.json, and a
plot of the class counts to D/profile.svg.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe


def main(recipe: Recipe, *, decode: bool) -> None:
    import numpy as np

    from deitlt_tf.inspect_data import findings, summary
    from deitlt_tf.inspect_data.words import number_of
    from deitlt_tf.runs.files import replacing, write_json

    def say(line: str) -> None:
        print(command_line.with_dashes(line))

    report = findings.inspect(recipe, every_image=decode, say=say)
    for line in summary.lines(report):
        say(line)
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
