"""A finished run without training, for tests of what comes after it: random weights, real files, in a second or two."""

import sys
from pathlib import Path

import numpy as np
from test_programs import COLOURS, SMALL, picture

from deitlt_tf import assemble, options, workdir

CLASS_NAMES = tuple(sorted(COLOURS))
CLASS_COUNTS = (12, 6, 3)

# As `python export/X.py` does: a script's own folder comes first.
sys.path.insert(0, str(Path(__file__).parent.parent / "export"))


def finished(root: Path, *arguments: str, teacher: bool = False) -> Path:
    """ROOT/run, as `train` leaves it, of SMALL and `arguments`, and the data that it names in ROOT/images.

    Three classes, 12 / 6 / 3 training and 4 test images of several formats and sizes. The random weights are large, so
    that images differ in their answers.
    """
    images, folder = root / "images", root / "run"
    for split, counts in (("train", CLASS_COUNTS), ("test", (4, 4, 4))):
        for name, count in zip(CLASS_NAMES, counts, strict=True):
            (images / split / name).mkdir(parents=True)
            for i in range(count):
                suffix = ("png", "jpg", "webp", "bmp")[i % 4]
                picture(COLOURS[name], i, size=(9 + i, 11)).save(images / split / name / f"{i}.{suffix}")
    flags = options.parse(["tiny", *SMALL, f"--data_dir={images}", f"--workdir={folder}", *arguments])
    text = options.as_flagfile(vars(flags))
    workdir.claim(folder, vars(flags), text=text, class_names=CLASS_NAMES)
    networks = {"student": assemble.student(flags, num_classes=3)}
    if teacher:
        networks["teacher"] = assemble.teacher_network(flags, num_classes=3)
    draw = np.random.default_rng(0)
    for name, network in networks.items():
        for variable in network.trainable_variables:
            if len(variable.shape) == 2:
                variable.assign(draw.normal(scale=0.5, size=variable.shape))
        workdir.save_model(network, folder / f"{name}.keras", class_names=CLASS_NAMES)
    workdir.write_json(folder / "results.json", {"class_counts": list(CLASS_COUNTS), "student.keras": "random"})
    return folder
