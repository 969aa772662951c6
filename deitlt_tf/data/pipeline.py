"""Batches for training and evaluation.

The training stream is a function of the position p = 0, 1, 2, ... of an example: it has no shuffle buffer and no state,
so a resumed run gets the batches that it would have had.

    epoch of p  = p // E, where E = steps per epoch * batch
    image at p  = a permutation by formula (`index_shuffle`), another one in each epoch
    view at p   = a function of the image and of the seed (seed of the run, p)
"""

import dataclasses
import functools
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf.data import augment, decode
from deitlt_tf.data.dataset import Source
from deitlt_tf.data.paths import Paths

# (image, and in training a seed int [2]) -> uint8 [size, size, 3], or a tuple of such views
View = Callable[..., Any]

# sampling -> power: a class fills a share of the epoch that is proportional to (its number of images) ^ power.
SAMPLING = {"instance": 1.0, "sqrt": 0.5, "class_balanced": 0.0}

# {source: its images as a tensor}, as long as the source exists and a reader needs the tensor.
_TENSORS: weakref.WeakKeyDictionary[Source, weakref.ref] = weakref.WeakKeyDictionary()


def steps_per_epoch(num_images: int, *, batch: int, repeats: int = 1) -> int:
    """Whole batches in an epoch, at least one: N images, or floor(N / 256) 256 views with repeated augmentation.

    num_images: N. batch: images of a step. repeats: views of each image in an epoch.
    Source: the official samplers.py (RASampler), whose epoch shows about N / repeats distinct images.
    """
    views = num_images // 256 * 256 if repeats > 1 and num_images >= 256 else num_images
    return max(1, views // batch)


def image_at(position: tf.Tensor, *, num_images: int, epoch_length: int, repeats: int, seed: int) -> tf.Tensor:
    """Index of the image at a position, int64 -> int64; `repeats` neighbouring positions have the same image.

    Without repeats, the first N positions of an epoch have N different images: `index_shuffle` permutes 0..N-1.
    num_images: N. epoch_length: positions of an epoch.
    """
    epoch, within = position // epoch_length, position % epoch_length
    rank = within // repeats % num_images
    key = shuffle_key(tf.stack([tf.cast(seed, tf.int64), epoch]))
    return tf.random.experimental.index_shuffle(rank, key, tf.constant(num_images - 1, tf.int64))


def shuffle_key(seed: tf.Tensor) -> tf.Tensor:
    """A key of `index_shuffle`, uint32 [2], drawn from a seed int [2].

    `index_shuffle` uses the words of its key modulo a small power of two: 256 up to 65,536 images. With (run seed,
    epoch) itself as the key the order would repeat every 256 epochs, and some images would be shown far more often.
    """
    return tf.random.stateless_uniform([2], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")


def balanced_image_at(
    labels: np.ndarray, *, power: float, epoch_length: int, repeats: int, seed: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function position -> index of an image, int64; class c fills a share ~ n_c^power of every epoch.

    An epoch has M = ceil(epoch_length / repeats) slots. Each class owns a run of neighbouring slots, as many as its
    share, to within one. A permutation of the epoch says which slot a position has. Slot j of a class of n images has
    image j mod n of the epoch's permutation of the class. So all images of a class come once before any comes twice.
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
        epoch_seed = tf.stack([tf.cast(seed, tf.int64), epoch])
        key = shuffle_key(epoch_seed)
        slot = tf.random.experimental.index_shuffle(within // repeats, key, tf.constant(slots - 1, tf.int64))
        label = tf.searchsorted(ends, slot[None], side="right")[0]
        count = counts[label]
        class_seed = tf.random.experimental.stateless_fold_in(epoch_seed, tf.cast(label, tf.int64))
        rank = (slot - first_slot[label]) % count
        number = tf.random.experimental.index_shuffle(rank, shuffle_key(class_seed), count - 1)
        return by_class[first_image[label] + number]

    return index


def reader(source: Source, *, max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function index -> uint8 [H, W, 3]: pixels from memory, or a file or encoded bytes, decoded.

    max_pixels: as in `decode.decode`.
    """
    if isinstance(source.images, Paths):
        path_at = source.images.in_graph()
        return lambda index: decode.read(path_at(index), max_pixels=max_pixels)
    images = _tensor(source)
    if source.kind == "pixels":
        return lambda index: tf.gather(images, index)
    if source.kind == "paths":
        return lambda index: decode.read(images[index], max_pixels=max_pixels)
    return lambda i: decode.decode(images[i], name="image " + tf.strings.as_string(i), max_pixels=max_pixels)


def _tensor(source: Source) -> tf.Tensor:
    """`source.images`. All readers share one copy, because the encoded images of ImageNet-LT take 20 GB."""
    tensor = _TENSORS[source]() if source in _TENSORS else None
    if tensor is None:
        with tf.init_scope():
            tensor = tf.constant(source.images)
        _TENSORS[source] = weakref.ref(tensor)
    return tensor


def decoded(source: Source, *, limit: float, max_pixels: int) -> Source:
    """`source` with its images decoded, if they have one size and then take at most `limit` bytes; else unchanged.

    To read and decode a small image takes longer than to compute its view, and would be repeated in every epoch. The
    views stay the same. limit: bytes, 0: never. Raises what `decode.decode` raises.
    """
    if source.kind == "pixels" or not limit:
        return source
    read = reader(source, max_pixels=max_pixels)
    shape = read(tf.constant(0)).shape
    if len(source) * math.prod(shape) > limit:
        return source
    pixels = np.empty((len(source), *shape), np.uint8)
    images = tf.data.Dataset.range(len(source)).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    progress = {"total": len(source), "desc": "decoding", "unit": "img", "leave": False, "disable": None}
    for index, image in enumerate(tqdm(images.as_numpy_iterator(), **progress)):
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

    The batch of a step does not depend on first_step.
    view: (image, seed int [2]) -> the training view, or a tuple of views. batch: images of a step, over all workers.
    repeats: views of each image in an epoch. seed: of the run.
    sampling: share of a class in an epoch: "instance" proportional to its number of images, "sqrt" to the square root
    of that, "class_balanced" equal for all classes. max_pixels: as in `decode.decode`.
    worker, workers, replicas: only the share of this worker, in batches of B / replicas; the shares of workers
    0, 1, ... lie one after the other in every batch.
    """
    read = reader(source, max_pixels=max_pixels)
    labels = tf.constant(source.labels, tf.int32)
    order = {"epoch_length": steps_per_epoch * batch, "repeats": repeats, "seed": seed}
    at: Callable[[tf.Tensor], tf.Tensor]
    if sampling == "instance":
        at = functools.partial(image_at, num_images=len(source), **order)
    else:
        at = balanced_image_at(np.asarray(source.labels), power=SAMPLING[sampling], **order)

    def example(position: tf.Tensor) -> tuple:
        index = at(position)
        return view(read(index), tf.stack([tf.cast(seed, tf.int64), position])), labels[index]

    return stream(example, first_step, steps, batch=batch, worker=worker, workers=workers, replicas=replicas)


def whole_epochs(
    source: Source,
    *,
    view: View,
    batch: int,
    first: int,
    end: int,
    seed: int = 0,
    max_pixels: int = 100_000_000,
) -> tf.data.Dataset:
    """Batches (images uint8 [B, S, S, 3], labels int32 [B]) of epochs first .. end - 1, each of all N images.

    The last batch of an epoch has what is left, N mod B images. An epoch does not depend on `first`.
    view: (image, seed int [2]) -> the training view. batch: B. seed: of order and views. max_pixels: as in `train`.
    """
    read = reader(source, max_pixels=max_pixels)
    labels, count = tf.constant(source.labels, tf.int32), len(source)

    def example(position: tf.Tensor) -> tuple:
        index = image_at(position, num_images=count, epoch_length=count, repeats=1, seed=seed)
        return view(read(index), tf.stack([tf.cast(seed, tf.int64), position])), labels[index]

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        positions = tf.data.Dataset.range(number * count, (number + 1) * count)
        return positions.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch)

    options = tf.data.Options()
    options.deterministic = True
    return tf.data.Dataset.range(first, end).flat_map(epoch).prefetch(tf.data.AUTOTUNE).with_options(options)


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
    """Batches (images uint8 [B, S, S, 3], labels int32 [B], mask float32 [B]) over the whole source, in its order.

    The last batch is filled up with copies of the last image, whose mask is 0.
    view: image -> the evaluation view. The other arguments: as in `train`.
    """
    read = reader(source, max_pixels=max_pixels)
    labels = tf.constant(source.labels, tf.int32)
    count = len(source)

    def example(position: tf.Tensor) -> tuple:
        index = tf.minimum(position, count - 1)
        return view(read(index)), labels[index], tf.cast(position < count, tf.float32)

    return stream(example, 0, -(-count // batch), batch=batch, worker=worker, workers=workers, replicas=replicas)


def evaluation_batches(
    source: Source,
    *,
    size: int,
    resize: int,
    batch: int = 100,
    max_pixels: int = 100_000_000,
    five_crops: bool = False,
    **share: int,
) -> tf.data.Dataset:
    """Batches of `evaluation` in the evaluation view of a network.

    size: side of the network's input, pixels. resize: short side before the crop, see `augment.evaluation_view`.
    five_crops: whether there are five crops of an image, [B, 5, S, S, 3], see `augment.five_crops`. Defaults to False.
    share: worker, workers and replicas, as in `train`.
    """
    view = functools.partial(augment.five_crops if five_crops else augment.evaluation_view, size=size, resize=resize)
    return evaluation(source, view=view, batch=batch, max_pixels=max_pixels, **share)


def stream(
    example: Callable[[tf.Tensor], tuple], first: int, end: int, *, batch: int, worker: int, workers: int, replicas: int
) -> tf.data.Dataset:
    """Batches first .. end - 1 of example(position); of each batch the part of one worker, see `train`."""
    share = batch // workers

    def of_worker(position: tf.Tensor) -> tuple:
        # position counts the examples of this worker; `example` takes positions of the whole stream
        if workers == 1:
            return example(position)
        return example(position // share * batch + worker * share + position % share)

    options = tf.data.Options()
    options.deterministic = True
    # All replicas of a worker read one stream, and each takes its slice of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    # One map does everything, because a second one costs a fifth of the time of the view of a small image.
    examples = tf.data.Dataset.range(first * share, end * share).map(of_worker, num_parallel_calls=tf.data.AUTOTUNE)
    return examples.batch(batch // replicas, drop_remainder=True).prefetch(tf.data.AUTOTUNE).with_options(options)
