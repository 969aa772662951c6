"""How long from the command to the first step of a list of 437,513 images in 8,142 classes, and in what memory.

    python benchmarks/startup.py

makes that list, its images hard links to a few small JPEG files, in a temporary folder, starts `deitlt_tf.train` on it
(recipe inat18.cfg; a nano ViT at 32 pixels without a teacher, so that the data and TensorFlow are what takes time), and
stops it when it shows its first loss. Needs a file system with hard links, and Linux.
"""

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

IMAGES, CLASSES, FILES = 437_513, 8_142, 16
ROOT = Path(__file__).parent.parent
FLAGS = (
    "--data=list --train_list=train.txt --val_list= --test_list=val.txt --method=vit --model=vit_nano "
    "--image_size=32 --eval_resize=0 --batch_size=64 --accumulation=1"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        recipe = ROOT / "configs" / "inat18.cfg"
        where = [f"--flagfile={recipe}", f"--data_dir={folder}", f"--workdir={folder}/run"]
        print(first_step([sys.executable, "-m", "deitlt_tf.train", *where, *FLAGS.split()]))


def write(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(FILES):
        pixels = np.kron(draw.integers(0, 256, (30, 40, 3), dtype=np.uint8), np.ones((10, 10, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    shares = np.arange(1, CLASSES + 1) ** -0.9
    counts = np.maximum(2, (shares / shares.sum() * IMAGES).astype(int))
    counts[0] += IMAGES - counts.sum()
    lines = {"train": [], "val": []}
    for label, count in enumerate(counts):
        (folder / str(label)).mkdir()
        for place in range(count + 1):  # the last one is for testing
            os.link(folder / f"{place % FILES}.jpg", folder / str(label) / f"{place}.jpg")
            lines["train" if place < count else "val"].append(f"{label}/{place}.jpg {label}\n")
    for name, found in lines.items():
        (folder / f"{name}.txt").write_text("".join(found))


def first_step(command: list[str]) -> str:
    """Seconds until a loss is on the screen, which is a pseudo-terminal, so that the bar is drawn at once."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    os.set_blocking(ours, False)
    start, shown, bar = time.monotonic(), b"", None
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=ROOT)
    try:
        while b"loss=" not in shown:
            if process.poll() is not None:
                sys.exit(f"error: training ended by itself: {shown[-500:].decode(errors='replace')}")
            time.sleep(0.05)
            try:
                shown += os.read(ours, 2**16)
            except BlockingIOError:
                continue
            if bar is None and b"ViT:" in shown:
                bar = time.monotonic() - start
        peak = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())
        step = time.monotonic() - start
        return f"progress bar after {bar:.0f} s, first step after {step:.0f} s, {int(peak[1]) >> 10} MiB"
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
