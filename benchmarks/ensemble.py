"""Several teachers as one model file: its answer is the log of the mean of their probabilities.

    python benchmarks/ensemble.py --teachers=runs/a/teacher.keras,runs/b/teacher.keras --out=runs/pair/teacher.keras

Use it as any other teacher, with --teacher=runs/pair.
"""

import argparse
import math
import os
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", required=True, help="Model files of the same classes, separated by commas.")
    parser.add_argument("--out", type=Path, required=True, help="The file to write.")
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        join([Path(path) for path in options.teachers.split(",")], options.out)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def join(paths: list[Path], out: Path) -> None:
    """Write `out`. Raises ValueError unless all files name the same classes in the same order."""
    import keras

    from deitlt_tf.runs.models import load_model, save_model

    members, names = zip(*(load_model(path) for path in paths), strict=True)
    for path, of_file in zip(paths, names, strict=True):
        if not of_file or of_file != names[0]:
            raise ValueError(f"{path} does not name the same classes as {paths[0]}.")
    for number, member in enumerate(members):
        member.name = f"teacher{number}"  # members of one kind have the same name, and Keras refuses that
    images = keras.Input(members[0].input_shape[1:], name="images")
    answers = keras.ops.stack([keras.ops.log_softmax(member(images)) for member in members])
    pooled = keras.ops.logsumexp(answers, axis=0) - math.log(len(members))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(keras.Model(images, pooled, name="teachers"), out, class_names=names[0])


if __name__ == "__main__":
    main()
