"""Write a data set's image files once as a few large ones, for storage that is slow with many small files.

    python -m deitlt_tf.to_tfds --flagfile=configs/places_lt.cfg --data_dir=places --out=shards/places_lt

writes shards/places_lt, a set of TensorFlow Datasets: encoded images as they are, labels, class names, and their order.
The same recipe with `--data=tfds:places_lt --data_dir=shards` then is the same run: the same image at every position.
--imbalance, --val_fraction and --skip_bad_images are left to that run: all images are written, bad ones too.
"""

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.recipe import Recipe

DECIDED_LATER = {"imbalance": 1.0, "val_fraction": 0.0}  # by the run that trains, on the same images in the same order


def main(recipe: Recipe, *, out: str) -> None:
    from deitlt_tf.data import shards, sources

    folder, name = shards.checked_out(out)
    splits = sources.load(recipe.data.name, **recipe.data.source() | DECIDED_LATER)
    if splits.train.kind != "paths":
        raise ValueError(f"--data={recipe.data.name} does not come as image files: it needs no shards.")
    shards.write(splits, folder=folder, name=name)
    print(f"written: {out}; train with --data=tfds:{name} --data_dir={folder}")


def program() -> None:
    command_line.program(main, __doc__, takes=("out",))


if __name__ == "__main__":
    program()
