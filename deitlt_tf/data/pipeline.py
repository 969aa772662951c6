"""3 BATCHES. A training stream is a function of its position: no shuffle buffer, no state, any step recomputable.

Position p of a run belongs to epoch p // E, E = steps per epoch * batch. Which image it shows is a permutation by
formula (`index_shuffle`) of that epoch, over images or over slots that classes share; every random draw of its view
comes from the seed (run seed, p).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.data import augment, decode
from deitlt_tf.data.dataset import Source

View = Callable[..., tf.Tensor]  # image (and, in training, a seed int [2]) -> uint8 [size, size, 3], or two of them

# How often a class is seen is proportional to its number of images to the power of this.
SAMPLING = {"instance": 1.0, "sqrt": 0.5, "class_balanced": 0.0}


def steps_per_epoch(num_images: int, *, batch: int, repeats: int = 1) -> int:
    """Whole batches in an epoch, at least one: N images, or floor(N / 256) 256 views with repeated augmentation.

    Source: the official samplers.py (RASampler), whose epoch shows about N / repeats distinct images.
    """
    views = num_images // 256 * 256 if repeats > 1 and num_images >= 256 else num_images
    return max(1, views // batch)


def image_at(position: tf.Tensor, *, num_images: int, epoch_length: int, repeats: int, seed: int) -> tf.Tensor:
    """Index of the image that position shows; `repeats` neighbours show the same one. int64 in, int64 out.

    An epoch's first N draws without repeats are N different images: `index_shuffle` permutes 0..N-1.
    """
    epoch, within = position // epoch_length, position % epoch_length
    rank = within // repeats % num_images
    key = tf.cast(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.uint32)
    return tf.random.experimental.index_shuffle(rank, key, tf.constant(num_images - 1, tf.int64))


def balanced_image_at(
    labels: np.ndarray, *, power: float, epoch_length: int, repeats: int, seed: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """position -> index of an image, int64, where class c fills a share ~ n_c^power of every epoch, to within one slot.

    An epoch's M = ceil(epoch_length / repeats) draws are a permutation of M slots, of which classes own neighbouring
    runs; the j-th slot of a class of n images shows number j mod n of that epoch's permutation of the class. So within
    an epoch no image of a class comes a second time before all have come once.
    """
    counts = np.bincount(labels)
    slots = -(-epoch_length // repeats)
    shares = np.where(counts > 0, np.maximum(counts, 1.0) ** power, 0.0)
    ends = np.round(np.cumsum(shares) / shares.sum() * slots).astype(np.int64)
    by_class = tf.constant(np.argsort(labels, kind="stable"), tf.int64)
    first_image = tf.constant(np.cumsum(counts) - counts, tf.int64)
    first_slot = tf.constant(np.concatenate([[0], ends[:-1]]), tf.int64)
    ends, counts = tf.constant(ends), tf.constant(counts, tf.int64)

    def index(position: tf.Tensor) -> tf.Tensor:
        epoch, within = position // epoch_length, position % epoch_length
        key = tf.cast(tf.stack([tf.cast(seed, tf.int64), epoch]), tf.uint32)
        slot = tf.random.experimental.index_shuffle(within // repeats, key, tf.constant(slots - 1, tf.int64))
        label = tf.searchsorted(ends, slot[None], side="right")[0]
        count = counts[label]
        key = tf.random.experimental.stateless_fold_in(tf.cast(key, tf.int32), label)
        rank = (slot - first_slot[label]) % count
        number = tf.random.experimental.index_shuffle(rank, tf.cast(key, tf.uint32), count - 1)
        return by_class[first_image[label] + number]

    return index


def reader(source: Source, *, max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """index -> uint8 [H, W, 3]: pixels from memory, or a file (or encoded bytes) read and decoded."""
    images = tf.constant(source.images)
    if source.kind == "pixels":
        return lambda index: tf.gather(images, index)
    if source.kind == "paths":
        return lambda index: decode.read(images[index], max_pixels=max_pixels)
    return lambda i: decode.decode(images[i], name="image " + tf.strings.as_string(i), max_pixels=max_pixels)


def decoded(source: Source, *, limit: float, max_pixels: int) -> Source:
    """`source` with its images decoded, if they are of one size and then take at most `limit` bytes; else as it is.

    A small image is read and decoded in more time than its view takes, and that in every epoch. Views stay the same.
    Raises what `decode.decode` raises.
    """
    if source.kind == "pixels" or not limit:
        return source
    read = reader(source, max_pixels=max_pixels)
    shape = read(tf.constant(0)).shape
    if len(source) * math.prod(shape) > limit:
        return source
    pixels = np.empty((len(source), *shape), np.uint8)
    images = tf.data.Dataset.range(len(source)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    shown = {"total": len(source), "desc": "decoding", "unit": "img", "leave": False, "disable": None}
    for index, image in enumerate(tqdm(images.as_numpy_iterator(), **shown)):
        if image.shape != shape:
            return source
        pixels[index] = image
    return dataclasses.replace(source, images=pixels)


def train(
    source: Source,
    *,
    view: View,
    batch: int,
    steps: int,
    steps_per_epoch: int,
    first_step: int = 0,
    repeats: int = 1,
    seed: int = 0,
    sampling: str = "instance",
    max_pixels: int = 100_000_000,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Batches (images uint8 [B, S, S, 3], labels int32 [B]) of steps first_step .. steps - 1.

    view: image, seed [2] -> the training view, or a tuple of views. What a step shows does not depend on first_step.
    worker, workers, replicas: of every batch only this worker's neighbouring share, in batches of B / replicas.
    sampling: how often a class is seen: "instance" as often as it has images, "class_balanced" as often as any other,
    "sqrt" between (proportional to the square root of its number of images).
    """
    read = reader(source, max_pixels=max_pixels)
    labels = tf.constant(source.labels, tf.int32)
    order = {"epoch_length": steps_per_epoch * batch, "repeats": repeats, "seed": seed}
    if sampling == "instance":
        at = functools.partial(image_at, num_images=len(source), **order)
    else:
        at = balanced_image_at(np.asarray(source.labels), power=SAMPLING[sampling], **order)

    def example(position):
        index = at(position)
        return view(read(index), tf.stack([tf.cast(seed, tf.int64), position])), labels[index]

    return stream(example, first_step, steps, batch=batch, worker=worker, workers=workers, replicas=replicas)


def evaluation(
    source: Source,
    *,
    view: View,
    batch: int,
    max_pixels: int = 100_000_000,
    worker: int = 0,
    workers: int = 1,
    replicas: int = 1,
) -> tf.data.Dataset:
    """Batches (images, labels, mask float32 [B]) over the whole source; the last one is filled up, with mask 0.

    worker, workers, replicas: as in `train`.
    """
    read = reader(source, max_pixels=max_pixels)
    labels = tf.constant(source.labels, tf.int32)
    count = len(source)

    def example(position):
        index = tf.minimum(position, count - 1)
        return view(read(index)), labels[index], tf.cast(position < count, tf.float32)

    return stream(example, 0, -(-count // batch), batch=batch, worker=worker, workers=workers, replicas=replicas)


def evaluation_batches(
    source: Source, *, size: int, resize: int, batch: int = 100, max_pixels: int = 100_000_000, **share: int
) -> tf.data.Dataset:
    """`evaluation` in the evaluation view of a network whose input has this size; resize: see `evaluation_view`."""
    view = functools.partial(augment.evaluation_view, size=size, resize=resize)
    return evaluation(source, view=view, batch=batch, max_pixels=max_pixels, **share)


def stream(
    example: Callable[[tf.Tensor], tuple], first: int, end: int, *, batch: int, worker: int, workers: int, replicas: int
) -> tf.data.Dataset:
    """Batches first .. end - 1 of example(position), of each the worker-th of `workers` equal runs of neighbours."""
    share = batch // workers

    def of_worker(i):
        return example(i // share * batch + worker * share + i % share if workers > 1 else i)

    options = tf.data.Options()
    options.deterministic = True
    # Replicas share one stream: each takes its slice of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # One map for all of it: a second one costs as much for each image as a fifth of the view of a small image.
    examples = tf.data.Dataset.range(first * share, end * share).map(of_worker, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(batch // replicas, drop_remainder=True).prefetch(tf.data.AUTOTUNE).with_options(options)
