"""Mixup, CutMix and smoothed targets of one batch: image i meets image B-1-i, with one lambda for the whole batch.

Source: timm.data.Mixup in its `batch` mode, as the official recipe uses it.
"""

import tensorflow as tf


def smooth_one_hot(labels: tf.Tensor, *, num_classes: int, smoothing: float) -> tf.Tensor:
    """1 - s + s/C for the true class, s/C for the others. Returns float32 [B, C].

    >>> print(smooth_one_hot(tf.constant([0, 2]), num_classes=4, smoothing=0.1).numpy())
    [[0.925 0.025 0.025 0.025]
     [0.025 0.025 0.925 0.025]]
    """
    off = smoothing / num_classes
    return tf.one_hot(labels, num_classes, on_value=1.0 - smoothing + off, off_value=off)


def others(x: tf.Tensor) -> tf.Tensor:
    """x_(B-1-i) at i. tf.reverse, because x[::-1] of a batch of images takes ten times as long."""
    return tf.reverse(x, [0])


def mixup(images: tf.Tensor, targets: tf.Tensor, lam: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """lambda x_i + (1 - lambda) x_(B-1-i), targets likewise. images: float [B, H, W, 3]; targets: [B, C].

    >>> images = tf.constant([10.0, 20.0])[:, None, None, None] * tf.ones([2, 4, 4, 3])
    >>> mixed, targets = mixup(images, tf.eye(2), tf.constant(0.75))
    >>> print(mixed[:, 0, 0, 0].numpy())
    [12.5 17.5]
    >>> print(targets.numpy())
    [[0.75 0.25]
     [0.25 0.75]]
    """
    return lam * images + (1 - lam) * others(images), lam * targets + (1 - lam) * others(targets)


def cutmix(images: tf.Tensor, targets: tf.Tensor, box: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The box of image B-1-i pasted into image i; lambda = share of image i that is left.

    box: int32 [top, bottom, left, right), already clipped to the image.

    >>> images = tf.constant([10.0, 20.0])[:, None, None, None] * tf.ones([2, 4, 4, 3])
    >>> pasted, targets = cutmix(images, tf.eye(2), tf.constant([0, 2, 0, 2]))
    >>> print(pasted[0, :, :, 0].numpy())
    [[20. 20. 10. 10.]
     [20. 20. 10. 10.]
     [10. 10. 10. 10.]
     [10. 10. 10. 10.]]
    >>> print(targets.numpy())
    [[0.75 0.25]
     [0.25 0.75]]
    """
    height, width = images.shape[1:3]
    top, bottom, left, right = tf.unstack(box)
    rows, columns = tf.range(height), tf.range(width)
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))[None, :]
    lam = 1 - tf.cast((bottom - top) * (right - left), tf.float32) / (height * width)
    pasted = tf.where(inside[None, :, :, None], others(images), images)
    return pasted, lam * targets + (1 - lam) * others(targets)


def cutmix_box(lam: tf.Tensor, centre: tf.Tensor, *, height: int, width: int) -> tf.Tensor:
    """The box of share 1 - lambda around `centre` (uniform in [0, 1)^2), clipped to the image: int32 [4].

    >>> print(cutmix_box(tf.constant(0.75), tf.constant([0.5, 0.5]), height=8, width=8).numpy())
    [2 6 2 6]
    >>> print(cutmix_box(tf.constant(0.75), tf.constant([0.0, 0.5]), height=8, width=8).numpy())
    [0 2 2 6]
    """
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
    weights: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """One batch through Mixup (lambda ~ Beta(.8, .8)) or CutMix (Beta(1, 1)), or left as it is; targets are smoothed.

    images: float32 [B, H, W, 3]; labels: int [B]; seed: int [2], everything drawn derives from it.
    weights: float32 [B], s. Targets are then lambda s_i t_i + (1 - lambda) s_j t_j. Defaults to None, all 1.
    An alpha of 0 switches that kind off. Returns images and targets [B, C].

    >>> images = tf.constant([10.0, 20.0])[:, None, None, None] * tf.ones([2, 4, 4, 3])
    >>> mixed, targets = mix(images, tf.constant([0, 1]), tf.constant([0, 1]), num_classes=2, smoothing=0.0)
    >>> print(mixed.shape, targets.shape, tf.reduce_sum(targets, axis=1).numpy())
    (2, 4, 4, 3) (2, 2) [1. 1.]
    """
    targets = smooth_one_hot(labels, num_classes=num_classes, smoothing=smoothing)
    if weights is not None:
        targets *= weights[:, None]
    if probability == 0 or (mixup_alpha == 0 and cutmix_alpha == 0):
        return images, targets
    uniform = tf.random.stateless_uniform([4], seed)
    lam_seed = tf.random.experimental.stateless_fold_in(seed, 1)
    height, width = images.shape[1:3]

    def with_mixup() -> tuple[tf.Tensor, tf.Tensor]:
        return mixup(images, targets, beta_draw(lam_seed, mixup_alpha))

    def with_cutmix() -> tuple[tf.Tensor, tf.Tensor]:
        lam = beta_draw(lam_seed, cutmix_alpha)
        return cutmix(images, targets, cutmix_box(lam, uniform[2:], height=height, width=width))

    if mixup_alpha == 0:
        mixed = with_cutmix
    elif cutmix_alpha == 0:
        mixed = with_mixup
    else:
        mixed = lambda: tf.cond(uniform[1] < switch_probability, with_cutmix, with_mixup)  # noqa: E731
    return tf.cond(uniform[0] < probability, mixed, lambda: (images, targets))
