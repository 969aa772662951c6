"""What a finished run has learnt, on one page: who is the expert where, with intervals, curves, probes and pictures.

    python -m deitlt_tf.report --workdir=runs/first [--data_dir=...] [--probe_images=512]
    python -m deitlt_tf.report --compare=runs/first,runs/second

The first writes report.html (one file, no network) and report.json, the same numbers, into the workdir. The second puts
runs on the same test images side by side, with differences from the first in pairs, as comparison.html and .json there.
Needs nothing but the workdirs and the data that their flags.cfg name; flags after it win. No GPU.
"""

import sys
from types import SimpleNamespace

from deitlt_tf.recipes import command_line
from deitlt_tf.report.numbers import comparison, opened, report, write


def main(flags: SimpleNamespace) -> None:
    from deitlt_tf.data import decode
    from deitlt_tf.devices.strategy import prepare
    from deitlt_tf.recipes.recipe import max_pixels_of

    prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
    run = opened(flags)
    make, name = (comparison, "comparison") if flags.compare else (report, "report")
    numbers, pictures = decode.naming_bad_images(lambda: make(run), run.splits, max_pixels=max_pixels_of(flags))
    write(run.folder, name, numbers, pictures)
    print(f"{run.folder / name}.html and {name}.json are written.")


def with_workdir(argv: list[str]) -> list[str]:
    """--compare=D1,D2 alone means the run D1 compared with the others: --workdir=D1 is put in."""
    given = {name.lstrip("-"): value for name, _, value in (argument.partition("=") for argument in argv)}
    if given.get("compare") and "workdir" not in given:
        return [*argv, f"--workdir={given['compare'].split(',')[0]}"]
    return argv


if __name__ == "__main__":
    sys.argv = with_workdir(sys.argv)
    command_line.program(main, __doc__, from_workdir=True, takes=("compare", "probe_images"))
