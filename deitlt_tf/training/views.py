"""From flags to views, batches and numbers."""

import copy
import functools
from collections.abc import Callable
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

from deitlt_tf.data import augment, pipeline, randaugment, sources
from deitlt_tf.devices.strategy import distributed, is_chief
from deitlt_tf.evaluation import metrics
from deitlt_tf.recipes.recipe import max_pixels_of, of_network


def training_images(source: sources.Source, flags: SimpleNamespace) -> sources.Source:
    """The training images, decoded if --decoded_mb allows."""
    return pipeline.decoded(source, limit=flags.decoded_mb * 1e6, max_pixels=max_pixels_of(flags))


def train_view(flags: SimpleNamespace, *, teacher: bool = False, views: int = 1) -> Callable:
    """image, seed -> the training view; with views=2 the teacher's first and second view of it."""
    f = of_network(flags, teacher=teacher)
    if views == 2:
        second = copy.copy(flags)
        second.teacher_randaugment, second.teacher_erasing = (
            flags.teacher_second_randaugment, flags.teacher_second_erasing
        )  # fmt: skip
        one, other = (train_view(x, teacher=True) for x in (flags, second))
        return lambda image, seed: (one(image, seed), other(image, tf.stack([~seed[0], seed[1]])))
    return functools.partial(
        augment.train_view,
        size=f.image_size,
        crop=f.crop,
        scale=(f.crop_min_scale, 1.0),
        padding=f.padding,
        flip=f.flip,
        randaugment=randaugment.parse(f.randaugment),
        erasing=f.erasing,
        resize=f.resize,
    )


def with_clean_view(flags: SimpleNamespace) -> Callable:
    """image, seed -> the training view, and the same crop and mirror image of it without RandAugment and erasing."""
    clean = copy.copy(flags)
    clean.randaugment, clean.erasing = "", 0.0
    one, other = train_view(flags), train_view(clean)
    return lambda image, seed: (one(image, seed), other(image, seed))


def evaluation_batches(
    source: sources.Source, flags: SimpleNamespace, *, teacher: bool = False, batch: int = 100, **share: int
) -> tf.data.Dataset:
    """share: of several workers, as `devices.distributed` gives it."""
    f = of_network(flags, teacher=teacher)
    view = functools.partial(augment.evaluation_view, size=f.image_size, resize=f.eval_resize)
    return pipeline.evaluation(source, view=view, batch=batch, max_pixels=max_pixels_of(flags), **share)


def measure_model(
    model: keras.Model,
    source: sources.Source,
    flags: SimpleNamespace,
    *,
    class_counts: np.ndarray,
    teacher: bool = False,
    title: str,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """`metrics.accuracies` of one network on one split, with a progress bar; batches grow with small images."""
    size = of_network(flags, teacher=teacher).image_size
    batch = 500 if size <= 64 else 100
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    batch = max(1, batch // replicas) * replicas
    batches = distributed(lambda **share: evaluation_batches(source, flags, teacher=teacher, batch=batch, **share))
    counted = metrics.count_hits(model, batches, num_classes=len(class_counts), title=title if is_chief() else None)
    return metrics.accuracies(counted, class_counts)


def check_batch(size: int, *, parts: int = 1, flag: str) -> None:
    """Raises ValueError unless a batch splits evenly over the current strategy's devices and `parts` on each."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if size % (replicas * parts):
        raise ValueError(
            f"--{flag}={size} does not split evenly over {replicas} devices with {parts} parts (--accumulation) each."
        )
