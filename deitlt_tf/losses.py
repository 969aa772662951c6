"""5 LOSS. Every loss is per example, [B] float32; `train_step` forms the one mean at the end, over the global batch.

Logits and targets are float32 [B, C]; labels are integers [B]; class counts are the training images of each class, [C].
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

ClassCounts = Sequence[int] | np.ndarray  # training images of each class, [C]

NEVER = 2**62  # as the first step of re-weighting: a step that no run reaches


def cross_entropy(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """-sum_c t_c log softmax(z)_c, for soft targets [B, C] or integer labels [B].

    >>> logits = tf.constant([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> print(cross_entropy(tf.constant([0, 1]), logits).numpy().round(3))
    [0.24  0.551]
    >>> print(cross_entropy(tf.constant([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]), logits).numpy().round(3))
    [1.24  0.551]
    """
    if targets.shape.rank == 1:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
    return tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)


def class_balanced_weights(class_counts: ClassCounts, beta: float = 0.9999) -> np.ndarray:
    """w_c ~ (1 - beta) / (1 - beta^n_c), scaled to sum to C: the inverse of a class's effective number of images.

    Returns: float32 [C]. Source: Cui et al., CVPR 2019; DeiT-LT section 3.2, official main.py.
    Raises ValueError for a class without images: its weight would be infinite.

    >>> print(class_balanced_weights([500, 50, 5]).round(3))
    [0.028 0.271 2.702]
    """
    counts = np.asarray(class_counts, np.float64)
    if counts.min() < 1:
        raise ValueError(
            f"class {int(counts.argmin())} has no training image: class-balanced weights need one in every class."
        )
    with np.errstate(divide="ignore"):  # beta = 0, which gives all classes the same weight
        inverse = (1 - beta) / -np.expm1(counts * np.log(beta))  # expm1: 1 - beta^n without cancellation
    return (inverse / inverse.sum() * len(counts)).astype(np.float32)


def hard_distillation(dist_logits: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """CE(f_d(x), argmax g(x)): one class even for a mixed image, no smoothing. Source: DeiT-LT equation 1.

    teacher: its logits [B, C], or their argmax [B].

    >>> student = tf.constant([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> print(hard_distillation(student, tf.constant([[0.0, 3.0, 0.0], [0.0, 3.0, 0.0]])).numpy().round(3))
    [2.24  0.551]
    >>> print(hard_distillation(student, tf.constant([1, 1])).numpy().round(3))
    [2.24  0.551]
    """
    return cross_entropy(choice(teacher), dist_logits)


def choice(answer: tf.Tensor) -> tf.Tensor:
    """The class with the largest logit, of logits [B, C]; classes [B] are returned as they are.

    >>> print(choice(tf.constant([[0.0, 3.0, 0.0], [2.0, 1.0, 0.0]])).numpy())
    [1 0]
    """
    return answer if answer.shape.rank == 1 else tf.argmax(answer, axis=-1)


def soft_distillation(dist_logits: tf.Tensor, teacher_logits: tf.Tensor, *, temperature: float) -> tf.Tensor:
    """tau^2 KL(softmax(g / tau) || softmax(f_d / tau)) / C.

    The official code averages over all elements, so it divides by C; so do we, and its recipes mean the same here.
    Source: official losses.py, DistillationLoss "soft".

    >>> student = tf.constant([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> teacher = tf.constant([[0.0, 3.0, 0.0], [0.0, 3.0, 0.0]])
    >>> print(soft_distillation(student, teacher, temperature=2.0).numpy().round(3))
    [0.754 0.156]
    """
    teacher = tf.nn.log_softmax(teacher_logits / temperature)
    student = tf.nn.log_softmax(dist_logits / temperature)
    divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)
    return divergence * temperature**2 / dist_logits.shape[-1]


def ldam(
    labels: tf.Tensor, cosines: tf.Tensor, class_counts: ClassCounts, *, max_margin: float = 0.5, scale: float = 30.0
) -> tf.Tensor:
    """CE of scale * (cos - margin of the true class), margin_c = max_margin (min n / n_c)^(1/4).

    cosines: [B, C], the output of a cosine classifier. Source: Cao et al., NeurIPS 2019; Saddle-LongTail losses.py.

    >>> cosines = tf.constant([[0.6, 0.2, 0.0], [0.6, 0.2, 0.0]])
    >>> print(ldam(tf.constant([0, 2]), cosines, [500, 50, 5]).numpy().round(3))
    [1.0e-03 3.3e+01]
    """
    margins = np.asarray(class_counts, np.float64) ** -0.25
    margins = (margins * max_margin / margins.max()).astype(np.float32)
    own = tf.one_hot(labels, cosines.shape[-1])
    return cross_entropy(labels, scale * (cosines - own * margins))


def balanced_softmax(labels: tf.Tensor, logits: tf.Tensor, class_counts: ClassCounts) -> tf.Tensor:
    """CE of z_c + log n_c: trains on a long tail a softmax that fits a balanced test. Source: Ren et al., NeurIPS 2020.

    >>> print(balanced_softmax(tf.constant([0, 2]), tf.zeros([2, 3]), [500, 50, 5]).numpy().round(3))
    [0.104 4.71 ]
    """
    return cross_entropy(labels, logits + log_prior(class_counts))


def log_prior(class_counts: ClassCounts, *, tau: float = 1.0) -> np.ndarray:
    """tau log(n_c / sum n), float32 [C]: added to logits while they train, so that without it they fit a balanced test.

    tau = 1 is balanced softmax. Source: Menon et al., ICLR 2021 (logit adjustment), equation 10.

    >>> print(log_prior([50, 25, 25]).round(3))
    [-0.693 -1.386 -1.386]
    """
    counts = np.asarray(class_counts, np.float64)
    return (tau * np.log(counts / counts.sum())).astype(np.float32)


def vector_scaling(
    labels: tf.Tensor, logits: tf.Tensor, class_counts: ClassCounts, *, gamma: float, tau: float
) -> tf.Tensor:
    """CE of z_c (n_c / max n)^gamma + tau log(n_c / sum n).

    Source: Kini et al., NeurIPS 2021; Saddle-LongTail VSLoss.

    >>> print(vector_scaling(tf.constant([0, 2]), tf.ones([2, 3]), [500, 50, 5], gamma=0.15, tau=1.25).numpy().round(3))
    [0.043 6.298]
    """
    counts = np.asarray(class_counts, np.float64)
    stretch = ((counts / counts.max()) ** gamma).astype(np.float32)
    return cross_entropy(labels, logits * stretch + log_prior(class_counts, tau=tau))
