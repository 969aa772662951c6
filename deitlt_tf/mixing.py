"""Mixup, CutMix and smoothed targets of one batch: image i meets image B-1-i, with one lambda for the whole batch.

Source: timm.data.Mixup in its `batch` mode, as the official recipe uses it.
"""

import tensorflow as tf


def smooth_one_hot(labels: tf.Tensor, *, num_classes: int, smoothing: float) -> tf.Tensor:
    """1 - s + s/C for the true class, s/C for the others. Returns float32 [B, C]."""
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, on_value=1.0 - smoothing + off, off_value=off)


def others(x: tf.Tensor) -> tf.Tensor:
    """x_(B-1-i) at i. tf.reverse, because x[::-1] of a batch of images takes ten times as long."""
    return tf.reverse(x, [0])


def mixup(images: tf.Tensor, targets: tf.Tensor, lam: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """lambda x_i + (1 - lambda) x_(B-1-i), targets likewise. images: float [B, H, W, 3]; targets: [B, C]."""
    return lam * images + (1 - lam) * others(images), lam * targets + (1 - lam) * others(targets)


def cutmix(images: tf.Tensor, targets: tf.Tensor, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The box of image B-1-i pasted into image i; lambda = share of image i that is left.

    box: int32 [top, bottom, left, right), already clipped to the image.
    """
    height, width = images.shape[1:3]
    top, bottom, left, right = tf.unstack(box)
    rows, columns = tf.range(height), tf.range(width)
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))[None, :]
    lam = 1 - tf.cast((bottom - top) * (right - left), tf.float32) / (height * width)
    pasted = tf.where(inside[None, :, :, None], others(images), images)
    return pasted, lam * targets + (1 - lam) * others(targets)


def cutmix_box(lam: tf.Tensor, centre: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """The box of share 1 - lambda around `centre` (uniform in [0, 1)^2), clipped to the image: int32 [4]."""
    size = tf.constant([height, width], tf.float32)
    half = tf.cast(size * tf.sqrt(1 - lam), tf.int32) // 2
    middle = tf.cast(centre * size, tf.int32)
    low = tf.maximum(middle - half, 0)
    high = tf.minimum(middle + half, [height, width])
    return tf.stack([low[0], high[0], low[1], high[1]])


def beta_draw(seed: tf.Tensor, concentration: float) -> tf.Tensor:
    """One draw of Beta(a, a), as a ratio of two Gamma(a) draws."""
    a, b = tf.unstack(tf.random.stateless_gamma([2], seed, alpha=concentration))
    return a / (a + b)


def mix(
    images: tf.Tensor,
    labels: tf.Tensor,
    seed: tf.Tensor,
    *,
    num_classes: int,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    probability: float = 1.0,
    switch_probability: float = 0.5,
    smoothing: float = 0.1,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One batch through Mixup (lambda ~ Beta(.8, .8)) or CutMix (Beta(1, 1)), or left as it is; targets are smoothed.

    images: float32 [B, H, W, 3]; labels: int [B]; seed: int [2], everything drawn derives from it.
    An alpha of 0 switches that kind off. Returns images and targets [B, C].
    """
    targets = smooth_one_hot(labels, num_classes=num_classes, smoothing=smoothing)
    if probability == 0 or (mixup_alpha == 0 and cutmix_alpha == 0):
        return images, targets
    uniform = tf.random.stateless_uniform([4], seed)
    lam_seed = tf.random.experimental.stateless_fold_in(seed, 1)
    height, width = images.shape[1:3]

    def with_mixup():
        return mixup(images, targets, beta_draw(lam_seed, mixup_alpha))

    def with_cutmix():
        lam = beta_draw(lam_seed, cutmix_alpha)
        return cutmix(images, targets, cutmix_box(lam, uniform[2:], height=height, width=width))

    if mixup_alpha == 0:
        mixed = with_cutmix
    elif cutmix_alpha == 0:
        mixed = with_mixup
    else:
        mixed = lambda: tf.cond(uniform[1] < switch_probability, with_cutmix, with_mixup)  # noqa: E731
    return tf.cond(uniform[0] < probability, mixed, lambda: (images, targets))
