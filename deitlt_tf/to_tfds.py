"""Write the image files of a data set as a few large ones, for storage that is slow with many small files.

    python -m deitlt_tf.to_tfds --flagfile=configs/places_lt.cfg --data_dir=places --out=shards/places_lt

writes shards/places_lt, a set of TensorFlow Datasets: the encoded images, their labels and class names, in the same
order. The same recipe with --data=tfds:places_lt --data_dir=shards then is the same run, with the same image at every
position. All images are written, also those that cannot be decoded: --imbalance, --val_fraction and --skip_bad_images
take effect in that run.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

# Settings that choose among the images have no effect here, because the run that trains applies them.
ALL_IMAGES = {"imbalance": 1.0, "val_fraction": 0.0}


def main(recipe: Recipe, *, out: str) -> None:
    from deitlt_tf.data import shards, sources

    folder, name = shards.folder_and_name(out)
    splits = sources.load(recipe.data.name, **recipe.data.source() | ALL_IMAGES)
    if splits.train.kind != "paths":
        raise ValueError(f"--data={recipe.data.name} does not come as image files: it needs no shards.")
    shards.write(splits, folder=folder, name=name)
    taxonomy = f" --taxonomy_file={folder}/{name}/{shards.TAXONOMY}" if splits.taxonomy else ""
    print(f"written: {out}; train with --data=tfds:{name} --data_dir={folder}{taxonomy}")


def program() -> None:
    command_line.program(main, __doc__, takes=("out",))


if __name__ == "__main__":
    program()
