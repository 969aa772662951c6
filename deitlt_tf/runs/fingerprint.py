"""What data a run has seen: a short text that changes when images or labels do."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.data.paths import Paths
from deitlt_tf.runs.files import read_text, write_json

FILE = "data.json"  # in the folder of a run: the fingerprints of the data that it began on
SAMPLED = 256  # files whose sizes count, too: to ask a network disk for the size of every file would take minutes

Fingerprints = dict[str, dict[str, object]]


def fingerprints(splits: Splits) -> Fingerprints:
    """{split: {"images": N, "sha256": text}} of the splits that there are."""
    return {name: {"images": len(source), "sha256": fingerprint(source)} for name, source in splits.parts.items()}


def fingerprint(source: Source) -> str:
    """SHA-256 of labels and images: of pixels or encoded bytes themselves; of files their names and a sample of sizes.

    Names count from the folder that all images share, so that the folder may be moved.
    """
    digest = hashlib.sha256(np.ascontiguousarray(source.labels, "<i8").tobytes())
    if source.kind == "pixels":
        digest.update(repr(source.images.shape).encode() + np.ascontiguousarray(source.images).tobytes())
        return digest.hexdigest()
    if source.kind == "paths":
        chosen = np.unique(np.linspace(0, len(source) - 1, SAMPLED).round().astype(int))
        sizes = storage.each(_size, [source.images[i] for i in chosen])
    if isinstance(source.images, Paths):
        digest.update(repr(sizes).encode() + source.images.numbers())
        return digest.hexdigest()
    images = list(source.images)
    if source.kind == "paths":
        images = [os.fsencode(path) for path in storage.below_common_folder(images)]
        digest.update(repr(sizes).encode())
    for image in images:
        digest.update(len(image).to_bytes(8, "little") + image)
    return digest.hexdigest()


def _size(path: str) -> int:
    """Bytes of a file; -1 where it cannot be asked, which reading the images will tell better."""
    try:
        return storage.size(path)
    except OSError:
        return -1


def read_fingerprints(folder: Path) -> Fingerprints | None:
    """What `write_fingerprints` wrote; None if there is no such file. Raises ValueError for a damaged file."""
    path = folder / FILE
    try:
        before = json.loads(read_text(path))
        return {str(name): {"images": int(x["images"]), "sha256": str(x["sha256"])} for name, x in before.items()}
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read, so whether the data are still those of the run is not known. If they are, delete "
            "that file: it is written again."
        ) from error


def write_fingerprints(folder: Path, data: Fingerprints) -> None:
    """Keep the fingerprints of the data of a run in its folder."""
    write_json(folder / FILE, data)


def differences(before: Fingerprints, now: Fingerprints) -> list[str]:
    """A sentence for each split that is not the one of before, with the numbers of images."""
    sentences = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name, {}).get("images", 0), now.get(name, {}).get("images", 0)
        if before.get(name) != now.get(name):
            what = "other images or labels" if old == new else f"{new} images now"
            sentences.append(f"the {name} split had {old} images and has {what}")
    return sentences
