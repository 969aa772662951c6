"""Write the image files of a data set as a few large ones: a set of TensorFlow Datasets, in the same order."""

import os
import re
import tempfile
from collections.abc import Iterator
from itertools import islice
from multiprocessing.pool import ThreadPool

from tqdm import tqdm

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Source, Splits, stable_names
from deitlt_tf.data.progress import bar_of
from deitlt_tf.data.sources import taxonomy_files

EXAMPLES_PER_SHARD = 1024  # about 100 MB of photographs
TAXONOMY = "taxonomy.csv"
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def folder_and_name(out: str) -> tuple[str, str]:
    """(folder, name) of `out`, FOLDER/NAME.

    Raises ValueError or FileExistsError if no new TFDS set can have that name there.
    """
    import tensorflow_datasets as tfds

    if not out:
        raise ValueError("`out` is missing: name the folder of the new data set, FOLDER/NAME.")
    if storage.is_url(out):
        raise ValueError(f"out={out} is a URL: write to a disk, then copy the folder.")
    folder, name = os.path.split(os.path.expanduser(out.rstrip("/")))
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError(f"out={out}: {name!r} must have lower-case letters, digits and _ only, a letter first.")
    if name in tfds.list_builders(with_community_datasets=False):
        raise ValueError(f"out={out}: TensorFlow Datasets has a {name} of its own, choose another name.")
    if os.path.exists(os.path.join(folder, name)):
        raise FileExistsError(f"out={out} is there already: nothing was written. Choose another name.")
    return folder or os.curdir, name


def write(splits: Splits, *, folder: str, name: str) -> None:
    """Write folder/name/1.0.0 as TFDS reads it, each split in its order; and folder/name/taxonomy.csv if there is one.

    The set gets its name when it is complete, so a run that was stopped leaves no half set under that name.
    splits: images that are file paths.
    """
    import tensorflow_datasets as tfds

    version, features = "1.0.0", tfds.features
    parts = {SPLIT_NAMES[split]: part for split, part in splits.parts.items()}
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as temporary:
        version_folder = os.path.join(temporary, name, version)
        os.makedirs(version_folder)
        info = tfds.core.DatasetInfo(
            builder=tfds.core.DatasetIdentity(
                name, tfds.core.Version(version), data_dir=version_folder, module_name=""
            ),
            description="Image files of one data set, in the order of their index.",
            features=features.FeaturesDict(
                {
                    "image": features.Image(shape=(None, None, 3)),
                    "label": features.ClassLabel(names=splits.train.class_names),
                    "file_name": features.Text(),  # decides what `val_fraction` holds out
                }
            ),
            disable_shuffling=True,  # TFDS then also reads one shard after the other
        )
        # Not `store_as_tfds_dataset`, because it would hold all images in memory to keep their order.
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=EXAMPLES_PER_SHARD)
        writer.initialize_splits(list(parts))
        with tqdm(total=sum(map(len, parts.values())), unit="image", **bar_of("writing")) as bar:
            for split, part in parts.items():
                for block in blocks(part):
                    writer.add_examples({split: block})
                    bar.update(len(block))
        writer.close_all()
        if splits.taxonomy is not None:
            taxonomy_files.write(os.path.join(temporary, name, TAXONOMY), splits.taxonomy)
        os.rename(os.path.join(temporary, name), os.path.join(folder, name))


def blocks(source: Source) -> Iterator[list[dict[str, bytes | int | str]]]:
    """Encoded images, labels and names of the source, in its order, 256 at a time."""
    rows = zip(source.images, source.labels.tolist(), stable_names(source), strict=True)
    with ThreadPool(storage.REQUESTS) as pool:  # threads, because reading waits for the storage most of the time
        while block := list(islice(rows, 256)):
            images = pool.map(read, [path for path, _, _ in block], chunksize=1)
            yield [
                {"image": image, "label": label, "file_name": name}
                for image, (_, label, name) in zip(images, block, strict=True)
            ]


def read(path: str) -> bytes:
    """All bytes of the file at a path or URL."""
    with storage.open_file(path) as stream:
        return stream.read()
