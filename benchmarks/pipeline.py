"""Training views per second: this input pipeline against timm's transform in a torch DataLoader.

    python benchmarks/pipeline.py [--cores=1,2] [--seconds=6] [--turns=7]

Both sides make the view of the student in the paper's recipes: RandomResizedCrop to 224 (bicubic), flip, RandAugment
m9, erasing. Both read the same images: JPEG files of 500 x 375 (windows of the two photographs in scikit-learn), and
32 x 32 arrays in memory. Each side is a process with the same number of cores and workers, and makes batches of 128.
The sides take turns. It prints the median of the turns with their range, and the median of the ratios of neighbouring
turns.

The side of timm also normalises to float32; here the first layer of the network does that. With --resize=exact our side
antialiases as Pillow does, level by level. Needs the extra [bench].
"""

import tempfile
from pathlib import Path

import turns
from absl import app, flags

BATCH, SIZE = 128, 224
NUM_FILES, NUM_ARRAYS = 256, 2048

CORES = flags.DEFINE_list("cores", ["1", "2"], "Numbers of cores to measure.")
KINDS = flags.DEFINE_list(
    "images", ["jpeg", "arrays"], "Kinds of images: jpeg, files of 500 x 375; arrays, 32 x 32 in memory."
)
RESIZE = flags.DEFINE_enum("resize", "fast", ["fast", "exact"], "Resizing on our side, as in a recipe.")
SECONDS = flags.DEFINE_float("seconds", 6, "Seconds of a turn.")
TURNS = flags.DEFINE_integer("turns", 7, "Turns of each side.", lower_bound=5)


def main(argv: list[str]) -> None:
    del argv
    print("| images | cores | deitlt_tf, images/s | timm, images/s | ratio |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder))
        for kind in KINDS.value:
            for cores in map(int, CORES.value):
                sides = {
                    "ours": turns.Side(our_side, kind, Path(folder), RESIZE.value, cores=cores),
                    "timm": turns.Side(timm_side, kind, Path(folder), cores=cores),
                }
                rates = turns.alternate(sides, turns=TURNS.value, seconds=SECONDS.value)
                for side in sides.values():
                    side.close()
                columns = [*map(turns.spread, rates.values()), turns.ratio(*rates.values())]
                print(f"| {kind} | {cores} | " + " | ".join(columns) + " |", flush=True)


def write_jpegs(folder: Path) -> None:
    """NUM_FILES windows of two photographs, 500 x 375."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos, draw = load_sample_images().images, np.random.default_rng(0)
    for number in range(NUM_FILES):
        photo = photos[number % len(photos)]
        top, left = draw.integers(photo.shape[0] - 375), draw.integers(photo.shape[1] - 500)
        Image.fromarray(photo[top : top + 375, left : left + 500]).save(folder / f"{number}.jpg", quality=90)


def our_side(kind: str, folder: Path, resize: str, *, cores: int) -> turns.Work:
    """Batches of `data.pipeline`."""
    import numpy as np
    import tensorflow as tf

    from deitlt_tf.data import augment, pipeline, sources

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(cores)
    images = arrays() if kind == "arrays" else np.array(sorted(map(str, folder.glob("*.jpg"))))
    source = sources.Source(images=images, labels=np.zeros(len(images), np.int32), class_names=("a",))
    view = augment.training_view(
        image_size=SIZE, crop="resized", crop_min_scale=0.08, padding=0, flip=True,
        randaugment="rand-m9-mstd0.5-inc1", erasing=0.25, resize=resize,
    )  # fmt: skip
    batches = iter(pipeline.train(source, view=view, batch=BATCH, steps=10**6, steps_per_epoch=10**4))
    return lambda: len(next(batches)[0])


def timm_side(kind: str, folder: Path, *, cores: int) -> turns.Work:
    """Batches of timm's transform in a torch DataLoader."""
    import torch
    from PIL import Image
    from timm.data import create_transform

    torch.set_num_threads(1)
    view = create_transform(
        input_size=SIZE, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", interpolation="bicubic", re_prob=0.25
    )
    images = arrays() if kind == "arrays" else sorted(folder.glob("*.jpg"))

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 10**6

        def __getitem__(self, index: int):
            image = images[index % len(images)]
            image = Image.open(image).convert("RGB") if kind == "jpeg" else Image.fromarray(image)
            while True:
                try:
                    return view(image), 0
                except ValueError:  # Pillow 12 refuses to posterize to 0 bits, which timm asks for at magnitude 10
                    continue

    batches = iter(torch.utils.data.DataLoader(Images(), BATCH, num_workers=cores, multiprocessing_context="fork"))
    return lambda: len(next(batches)[0])


def arrays():
    """32 x 32 windows of scikit-learn's photographs, shrunk to an eighth: uint8 [N, 32, 32, 3]."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photos = [np.asarray(Image.fromarray(p).resize((107, 71))) for p in load_sample_images().images]
    draw, windows = np.random.default_rng(0), []
    for number in range(NUM_ARRAYS):
        photo = photos[number % len(photos)]
        top, left = draw.integers(photo.shape[0] - 32), draw.integers(photo.shape[1] - 32)
        windows.append(photo[top : top + 32, left : left + 32])
    return np.stack(windows)


if __name__ == "__main__":
    app.run(main)
