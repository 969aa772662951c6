"""Several teachers as one: a model file that answers log of the mean of their probabilities.

    python benchmarks/ensemble.py --teachers=runs/a/teacher.keras,runs/b/teacher.keras --out=runs/pair/teacher.keras

What is written is taken with --teacher=runs/pair like any teacher.
"""

import os
from pathlib import Path

from absl import app, flags

TEACHERS = flags.DEFINE_list("teachers", None, "Model files of single teachers, of the same classes.", required=True)
OUT = flags.DEFINE_string("out", None, "The file to write.", required=True)


def main(argv: list[str]) -> None:
    del argv
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    from deitlt_tf import workdir

    members, names = zip(*(workdir.load_model(Path(path)) for path in TEACHERS.value), strict=True)
    for path, its in zip(TEACHERS.value, names, strict=True):
        if not its or its != names[0]:
            raise SystemExit(f"error: {path} does not name the same classes as {TEACHERS.value[0]}.")
    for number, member in enumerate(members):
        member.name = f"teacher{number}"  # of one kind they have one name
    images = keras.Input(members[0].input_shape[1:], name="images")
    answers = keras.ops.stack([keras.ops.log_softmax(member(images)) for member in members])
    pooled = keras.ops.logsumexp(answers, axis=0) - float(keras.ops.log(len(members)))
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    workdir.save_model(keras.Model(images, pooled, name="teachers"), Path(OUT.value), class_names=names[0])


if __name__ == "__main__":
    app.run(main)
