"""3 BATCHES. A training stream is a function of its position: no shuffle buffer, no state, any step recomputable.

Position p of a run belongs to epoch p // E, E = steps per epoch * batch. Which image it shows is a permutation by
formula (`index_shuffle`) of that epoch; every random draw of its view comes from the seed (run seed, p).
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deitlt_tf.data import decode
from deitlt_tf.data.sources import Source

View = Callable[..., tf.Tensor]  # image (and, in training, a seed int [2]) -> uint8 [size, size, 3]


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


def reader(source: Source, *, max_pixels: int) -> Callable[[tf.Tensor], tf.Tensor]:
    """index -> uint8 [H, W, 3]: pixels from memory, or a file (or encoded bytes) read and decoded."""
    images = tf.constant(source.images)
    if source.kind == "pixels":
        return lambda index: tf.gather(images, index)
    if source.kind == "paths":
        return lambda index: decode.read(images[index], max_pixels=max_pixels)
    return lambda i: decode.decode(images[i], name="image " + tf.strings.as_string(i), max_pixels=max_pixels)


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
    max_pixels: int = 100_000_000,
) -> tf.data.Dataset:
    """Batches (images uint8 [B, S, S, 3], labels int32 [B]) of steps first_step .. steps - 1.

    view: image, seed [2] -> the training view. What a step shows does not depend on first_step.
    """
    read = reader(source, max_pixels=max_pixels)
    labels = tf.constant(source.labels, tf.int32)
    order = {"num_images": len(source), "epoch_length": steps_per_epoch * batch, "repeats": repeats, "seed": seed}

    def example(position):
        index = image_at(position, **order)
        return view(read(index), tf.stack([tf.cast(seed, tf.int64), position])), labels[index]

    positions = tf.data.Dataset.range(first_step * batch, steps * batch)
    return finish(positions.map(example, num_parallel_calls=tf.data.AUTOTUNE), batch=batch)


def evaluation(source: Source, *, view: View, batch: int, max_pixels: int = 100_000_000) -> tf.data.Dataset:
    """Batches (images, labels, mask float32 [B]) over the whole source; the last one is filled up, with mask 0."""
    read = reader(source, max_pixels=max_pixels)
    labels = tf.constant(source.labels, tf.int32)
    count = len(source)

    def example(position):
        index = tf.minimum(position, count - 1)
        return view(read(index)), labels[index], tf.cast(position < count, tf.float32)

    positions = tf.data.Dataset.range(int(np.ceil(count / batch)) * batch)
    return finish(positions.map(example, num_parallel_calls=tf.data.AUTOTUNE), batch=batch)


def finish(examples: tf.data.Dataset, *, batch: int) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    # Replicas share one stream: each takes its slice of every batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return examples.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE).with_options(options)
