"""Folders of files that only look like images, and what a source says of them."""

import os
from pathlib import Path

from deitlt_tf.data.dataset import Source


def touch(root: Path, *paths: str) -> Path:
    """Files at these paths below `root`; what is in them is no image."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"an image")
    return root


def relative(source: Source, root: Path) -> list[tuple[str, int]]:
    """(path from `root`, label) of each image, in order."""
    paths = [os.path.relpath(path, root) for path in source.images]
    return list(zip(paths, source.labels.tolist(), strict=True))
