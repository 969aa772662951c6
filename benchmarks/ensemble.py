"""Several teachers as one: a model file that answers log of the mean of their probabilities.

    python benchmarks/ensemble.py --teachers=runs/a/teacher.keras,runs/b/teacher.keras --out=runs/pair/teacher.keras

What is written is taken with --teacher=runs/pair like any teacher.
"""

import argparse
import math
import os
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teachers", required=True, help="model files of the same classes, with commas between")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    asked = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        join([Path(path) for path in asked.teachers.split(",")], asked.out)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def join(paths: list[Path], out: Path) -> None:
    import keras

    from deitlt_tf.runs.models import load_model, save_model

    members, names = zip(*(load_model(path) for path in paths), strict=True)
    for path, its in zip(paths, names, strict=True):
        if not its or its != names[0]:
            raise ValueError(f"{path} does not name the same classes as {paths[0]}.")
    for number, member in enumerate(members):
        member.name = f"teacher{number}"  # of one kind they have one name
    images = keras.Input(members[0].input_shape[1:], name="images")
    answers = keras.ops.stack([keras.ops.log_softmax(member(images)) for member in members])
    pooled = keras.ops.logsumexp(answers, axis=0) - math.log(len(members))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_model(keras.Model(images, pooled, name="teachers"), out, class_names=names[0])


if __name__ == "__main__":
    main()
