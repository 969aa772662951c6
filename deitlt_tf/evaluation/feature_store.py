"""Features of images by a frozen network: each image is computed once, then read from disk.

A store is a folder of one network and one view. It knows an image by its content (SHA-256 of its file or pixels), not
by its name, so images may be added, renamed or split otherwise, and equal images are computed once. Each file has the
features of some thousand images and is complete or absent; a killed computation goes on from the last of them.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.data import augment, decode, pipeline, storage
from deitlt_tf.data.dataset import Source, take
from deitlt_tf.evaluation.metrics import evaluation_batch
from deitlt_tf.runs.files import replacing, write_json

FORMAT = 1  # of the files below; add 1 when it changes
PART = 2048  # images of a file
DIGEST = 32  # bytes of SHA-256


class FeatureStore:
    """The features of one network in one view, in `folder`/<key>/.

    folder: of all stores. network: pixels [B, S, S, 3] -> features [B, D]; name: of it, for people who look into the
    folder. eval_resize, max_pixels: see `data.augment.evaluation_view` and `data.decode.decode`.
    settings: of the network, those that its weights do not show. Default to none.
    """

    def __init__(
        self,
        folder: Path,
        network: keras.Model,
        *,
        name: str,
        eval_resize: int,
        max_pixels: int,
        settings: Mapping[str, Any] | None = None,
    ):
        self.network, self.eval_resize, self.max_pixels = network, eval_resize, max_pixels
        self.size, self.width = network.input_shape[1], network.output_shape[-1]
        self.facts = {
            "network": name,
            "weights, SHA-256": digest_of(network),
            "image size": self.size,
            "eval_resize": eval_resize,
            "version of the views": augment.VERSION,
            "format": FORMAT,
        }
        self.facts |= {"settings": dict(settings)} if settings else {}
        # Features in half precision are other numbers, and belong to runs of that precision alone.
        precisions = {layer.compute_dtype for layer in network.layers if isinstance(layer, keras.Layer)} - {"float32"}
        self.facts |= {"precision": min(precisions)} if precisions else {}
        key = hashlib.sha256(json.dumps(self.facts).encode()).hexdigest()[:16]
        self.folder = folder / f"{name}-{self.size}-{key}"

    def features(self, source: Source, *, title: str | None = None) -> np.ndarray:
        """The features of all images of a source, float32 [N, D], in its order.

        title: of the progress bars; None: no bars. Raises what reading an image raises; what was computed until then
        is kept.
        """
        keys = digests(source, title=title and f"{title}, looking for kept features")
        values = np.empty((len(source), self.width), np.float32)
        places = {key: index for index, key in reversed([*enumerate(keys)])}  # {digest: first image that has it}
        firsts = np.array([places[key] for key in keys])
        missing = dict.fromkeys(places.values())
        for part_keys, part in self._parts():
            for row, key in enumerate(part_keys):
                if (index := places.get(key)) in missing:
                    values[index] = part[row]
                    del missing[index]
        self._compute(source, keys, np.array(sorted(missing), int), values, title=title)
        return values if len(places) == len(keys) else values[firsts]

    def _parts(self) -> Iterator[tuple[list[bytes], np.ndarray]]:
        """Digests and features of each file; a damaged file is told and left out."""
        for path in sorted(self.folder.glob("[0-9]*.npz")):
            try:
                with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                    shapes = [_shape(archive, name) for name in ("digests", "features")]
                    if shapes[0] != (shapes[1][0], DIGEST) or shapes[1][1:] != (self.width,) or shapes[0][0] > PART:
                        raise ValueError(f"arrays of the shapes {shapes}")
                    keys, part = archive["digests"], archive["features"]
                    if keys.dtype != np.uint8 or part.dtype != np.float32:
                        raise ValueError("numbers of another type")
            except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
                print(f"note: {path} is damaged ({error}): its features are computed again.")
                continue
            yield [row.tobytes() for row in keys], part

    def _compute(
        self, source: Source, keys: list[bytes], indices: np.ndarray, values: np.ndarray, *, title: str | None
    ) -> None:
        """Computes the features of the images at `indices`, puts them into `values` and writes them in parts."""
        if not len(indices):
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "store.json", self.facts)
        last = max((int(path.stem) for path in self.folder.glob("[0-9]*.npz")), default=-1)
        batches = pipeline.evaluation_batches(
            take(source, indices),
            size=self.size,
            resize=self.eval_resize,
            batch=evaluation_batch(self.size),
            max_pixels=self.max_pixels,
        )
        forward = tf.function(lambda images: self.network(images, training=False), reduce_retracing=True)
        done = written = 0
        with tqdm(total=len(indices), unit="img", leave=False, **decode.bar_of(title and f"{title}, features")) as bar:
            for images, _, mask in batches:
                count = int(tf.reduce_sum(mask))
                values[indices[done : done + count]] = forward(images)[:count]
                done += count
                bar.update(count)
                while done - written >= PART or written < done == len(indices):
                    part = indices[written : written + PART]
                    last += 1
                    while (self.folder / f"{last:06d}.npz").exists():  # another run fills the same store
                        last += 1
                    self._write(self.folder / f"{last:06d}.npz", [keys[i] for i in part], values[part])
                    written += len(part)

    def _write(self, path: Path, keys: list[bytes], part: np.ndarray) -> None:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, digests=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, DIGEST), features=part)


def _shape(archive: Any, name: str) -> tuple[int, ...]:
    """The shape of an array of an .npz file from its header, so that no wrong file is read into memory."""
    with archive.zip.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"format {version}")
        return read[version](member)[0]


def digest_of(network: keras.Model) -> str:
    """SHA-256 of the structure of a network and its weights."""
    digest = hashlib.sha256()
    for variable in network.variables:
        value = variable.numpy()
        digest.update(f"{variable.path} {value.shape} {value.dtype}".encode() + value.tobytes())
    return digest.hexdigest()


def digests(source: Source, *, title: str | None = None) -> list[bytes]:
    """SHA-256 of each image: of its shape and pixels, or of its encoded bytes.

    A file that cannot be opened gets a digest of its own, because the pipeline tells what is wrong with it.
    title: of a progress bar; None: no bar.
    """

    def digest(index: int) -> bytes:
        image: Any = source.images[index]
        if source.kind == "pixels":
            return hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).digest()
        if source.kind == "encoded":
            return hashlib.sha256(image).digest()
        try:
            with storage.open_file(image) as file:
                return hashlib.sha256(file.read()).digest()
        except (OSError, ValueError):
            return hashlib.sha256(f"unreadable {index} {image}".encode(errors="surrogateescape")).digest()

    settings = {"total": len(source), "unit": "img", "leave": False} | decode.bar_of(title)
    with ThreadPool(storage.REQUESTS) as pool:  # the GIL is released while a file is read and hashed
        return list(tqdm(pool.imap(digest, range(len(source)), chunksize=64), **settings))
