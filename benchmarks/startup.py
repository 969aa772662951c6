"""Seconds from the command to the first step on a list of 437,513 images in 8,142 classes, and the memory it takes.

    python benchmarks/startup.py [--images=437513] [--classes=8142]

writes that list into a temporary folder; its images are hard links to a few small JPEG files. Then it starts
`deitlt_tf.train` on the list, and stops it when the first loss is on the screen. The recipe is inat18.cfg with a nano
ViT at 32 pixels and without a teacher, so the time is that of the data and of TensorFlow. Needs Linux and a file
system with hard links.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, CLASSES = 437_513, 8_142  # iNaturalist 2018
FILES = 16
ROOT = Path(__file__).parents[1]
FLAGS = (
    "--data=list --train_list=train.txt --val_list= --test_list=val.txt --method=vit --model=vit_nano "
    "--image_size=32 --eval_resize=0 --batch_size=64 --accumulation=1"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES, help="Training images in the list.")
    parser.add_argument("--classes", type=int, default=CLASSES, help="Classes of the list.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), images=options.images, classes=options.classes)
        recipe = ROOT / "configs" / "inat18.cfg"
        flags = [f"--flagfile={recipe}", f"--data_dir={folder}", f"--workdir={folder}/run"]
        print(first_step([sys.executable, "-m", "deitlt_tf.train", *flags, *FLAGS.split()]))


def write(folder: Path, *, images: int, classes: int) -> None:
    """train.txt with a long tail of classes and val.txt with one image of each, and the images that they list."""
    draw = np.random.default_rng(0)
    for number in range(FILES):
        pixels = np.kron(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    shares = np.arange(1, classes + 1) ** -0.9
    counts = np.maximum(2, (shares / shares.sum() * images).astype(int))
    counts[0] += images - counts.sum()
    lines = {"train": [], "val": []}
    for label, count in enumerate(counts):
        (folder / str(label)).mkdir()
        for place in range(count + 1):  # the last one is the test image
            os.link(folder / f"{place % FILES}.jpg", folder / str(label) / f"{place}.jpg")
            lines["train" if place < count else "val"].append(f"{label}/{place}.jpg {label}\n")
    for name, of_split in lines.items():
        (folder / f"{name}.txt").write_text("".join(of_split))


def first_step(command: list[str]) -> str:
    """Seconds until the first loss is on the screen. The screen is a pseudo-terminal, so the bar is drawn at once."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.set_blocking(ours, False)
    start, screen, bar = time.monotonic(), b"", None
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT)
    try:
        while b"loss=" not in screen:
            if process.poll() is not None:
                sys.exit(f"error: training ended by itself: {screen[-500:].decode(errors='replace')}")
            time.sleep(0.05)
            try:
                screen += os.read(ours, 2**16)
            except BlockingIOError:
                continue
            if bar is None and b"ViT:" in screen:
                bar = time.monotonic() - start
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        step = time.monotonic() - start
        return f"progress bar after {bar:.0f} s, first step after {step:.0f} s, {int(peak[1]) >> 10} MiB"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
