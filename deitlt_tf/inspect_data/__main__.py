"""Check a data set before days of training: missing, unreadable and doubled images, the class profile, the weights.

    python -m deitlt_tf.inspect_data --flagfile=configs/places_lt.cfg --data_dir=places [--workdir=D] [--decode]

takes the recipe of a training run and tells what that run would meet; exit code 1 if it would fail. Of an image, only
header and end are read, or all of it with --decode. With --workdir=D all findings are in D/inspect.json, the class
profile is D/profile.svg.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from deitlt_tf.inspect_data import findings, summary
from deitlt_tf.recipes import command_line


def main(flags: SimpleNamespace) -> None:
    from deitlt_tf.runs.files import replacing, write_json

    report = findings.inspect(flags)
    print("\n".join(summary.lines(report)))
    if flags.workdir:
        folder = Path(flags.workdir)
        write_json(folder / "inspect.json", report)
        with replacing(folder / "profile.svg") as path:
            summary.plot(np.array(report["classes"]["train"]), path)
        print(f"\nwritten: {folder / 'inspect.json'}, {folder / 'profile.svg'}")
    if report["errors"]:
        raise ValueError(f"training would fail: see {findings.number_of(len(report['errors']), 'error')} above.")


if __name__ == "__main__":
    command_line.program(main, __doc__, takes=("decode",))
