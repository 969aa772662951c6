"""A user's tiny images and a tiny recipe for them; running a program of the project on them."""

import shlex
from pathlib import Path

import keras
import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 20, 230), "green": (10, 220, 30), "red": (230, 10, 20)}
TRAIN = {"blue": 12, "green": 6, "red": 3}

SMALL = shlex.split("""
    --image_size=8 --crop=padded --padding=1 --randaugment= --eval_resize=0 --repeats=1 --eval_every=1
    --model=deit_nano --patch_size=4 --embed_dim=16 --depth=1 --num_heads=2
    --epochs=2 --reweight_epoch=1 --batch_size=7 --lr=1e-3 --lr_rule=constant --warmup_epochs=0 --ema_decay=.5
    --teacher_model=resnet8 --teacher_image_size=8 --teacher_epochs=1 --teacher_batch_size=7 --teacher_rho=.1
    --teacher_lr=.01 --teacher_padding=1 --teacher_reweight_epoch=-1 --teacher_drops=
""")


def picture(colour, seed, size=(9, 11)):
    noise = np.random.default_rng(seed).integers(-20, 20, (*size, 3))
    return Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


def write_images(root: Path) -> Path:
    """A folder of a user: train/ long-tailed, test/ balanced, in four formats, one grey, one with alpha."""
    for split, counts in (("train", TRAIN), ("test", dict.fromkeys(COLOURS, 4))):
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                suffix = ("png", "jpg", "webp", "bmp")[i % 4]
                picture(COLOURS[name], i).save(root / split / name / f"{i}.{suffix}")
    picture((90, 90, 90), 1).convert("L").save(root / "train" / "red" / "grey.png")
    picture((90, 0, 0), 2).convert("RGBA").save(root / "train" / "red" / "alpha.webp", lossless=True)
    return root


def snapshot(workdir: Path) -> dict:
    """All that has to repeat bit by bit: weights of every model and the lines of every journal."""
    found = {}
    for path in sorted(workdir.rglob("*.keras")):
        for i, weight in enumerate(keras.models.load_model(path).get_weights()):
            found[f"{path.relative_to(workdir)} {i}"] = weight.tobytes()
    for path in sorted(workdir.rglob("*.jsonl")):
        found[str(path.relative_to(workdir))] = path.read_text()
    return found
