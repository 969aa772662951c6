"""SSE-C, the fixed head of FedLoGe: a sparse matrix whose columns have equal lengths and equal, large angles.

    maximise   mean_c acos(max_{j != c} cos(w_c, w_j)) - sum_c (|w_c| - norm)^2    over the entries that are not zero

The matrix starts as a simplex equiangular tight frame, of which a random mask sets a share of the entries to zero.
Adam then moves the other entries. Everything is float64 NumPy with the gradient written out, so no device and no thread
changes the result. From about step 1000 on, the nearest neighbour of a class switches between almost equal ones, and
the last bits of another machine's matrix product decide. So the server makes the head once and sends it to all clients.
Source: official util/etf_methods.py (ETF_Classifier.gen_sparse_ETF).
"""

import numpy as np

MOST_COSINE = 0.99999  # acos has no derivative at 1
ADAM = (0.9, 0.999, 1e-8)  # beta_1, beta_2, epsilon: torch's defaults


def sse_c(
    features: int,
    num_classes: int,
    *,
    seed: int = 0,
    sparsity: float = 0.6,
    norm: float = 0.1,
    steps: int = 10_000,
    learning_rate: float = 1e-4,
) -> np.ndarray:
    """The kernel of the fixed head, float32 [D, C].

    features: D, at least num_classes. num_classes: C, at least 2. seed: of the start and the mask.
    sparsity: share of all entries that are zero. Defaults to 0.6, the published beta.
    norm: length of each column. Defaults to 0.1, the published one. The gradient that reaches the features is
      proportional to it: 0.1 starves runs of less than some hundred rounds, for which 0.2 to 0.4 is better.
    steps, learning_rate: of Adam. Default to the published 10,000 and 1e-4.
    Raises ValueError for fewer features than classes, because then the columns cannot be equiangular, and where the
    mask leaves nothing of a column.
    """
    if not 2 <= num_classes <= features:
        raise ValueError(
            f"a fixed head of {num_classes} classes does not fit {features} features: it needs two classes or more, "
            "and at least as many features as classes."
        )
    rng = np.random.RandomState(seed)
    start = dense_etf(rng.random_sample((features, num_classes)))
    zeros = rng.choice(start.size, int(sparsity * start.size), replace=False)
    left = np.ones(start.shape, bool)
    left.flat[zeros] = False
    if not left.any(0).all():
        raise ValueError(
            f"a fixed head of {features} features with sparsity={sparsity:g} has a class without any entry: lower the "
            "sparsity, or take a network of more features."
        )
    return optimised(start, zeros, norm=norm, steps=steps, learning_rate=learning_rate).astype(np.float32)


def dense_etf(uniform: np.ndarray) -> np.ndarray:
    """sqrt(C / (C - 1)) Q (I - 11'/C), with Q from the QR of `uniform` [D, C]: C columns at equal, largest angles."""
    classes = uniform.shape[1]
    q, _ = np.linalg.qr(uniform)
    return np.sqrt(classes / (classes - 1)) * q @ (np.eye(classes) - 1 / classes)


def optimised(
    start: np.ndarray, zeros: np.ndarray, *, norm: float, steps: int, learning_rate: float = 1e-4
) -> np.ndarray:
    """The matrix [D, C] after `steps` of Adam on the objective; entries at `zeros` are and stay zero.

    zeros: int [Z], indices into the row-major flattened matrix.
    """
    beta_1, beta_2, epsilon = ADAM
    mask = np.ones(start.shape)
    mask.flat[zeros] = 0
    weight = start * mask
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for step in range(1, steps + 1):
        gradient = loss_and_gradient(weight, norm=norm)[1] * mask
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        corrected = np.sqrt(v / (1 - beta_2**step)) + epsilon
        weight = weight - learning_rate * (m / (1 - beta_1**step)) / corrected
    return weight


def loss_and_gradient(weight: np.ndarray, *, norm: float) -> tuple[float, np.ndarray]:
    """sum_c (|w_c| - norm)^2 - mean_c acos(max_{j != c} cos(w_c, w_j)), and its gradient [D, C]. weight: [D, C]."""
    classes = weight.shape[1]
    lengths = np.linalg.norm(weight, axis=0)
    units = weight / lengths
    cosines = units.T @ units
    np.fill_diagonal(cosines, -np.inf)
    nearest = cosines.argmax(1)
    largest = cosines[np.arange(classes), nearest]
    clipped = np.clip(largest, -MOST_COSINE, MOST_COSINE)
    loss = float(np.sum((lengths - norm) ** 2) - np.mean(np.arccos(clipped)))
    # d(-acos(x))/dx = 1 / sqrt(1 - x^2); the clipped part has no gradient.
    by_cosine = np.where(clipped == largest, 1 / np.sqrt(1 - clipped**2), 0.0) / classes
    by_unit = units[:, nearest] * by_cosine
    np.add.at(by_unit.T, nearest, (units * by_cosine).T)
    radial = np.sum(by_unit * units, axis=0)  # a unit vector moves at a right angle to itself only
    return loss, (by_unit - units * radial) / lengths + 2 * (lengths - norm) * units


def angles(weight: np.ndarray) -> np.ndarray:
    """Degrees between each pair of different columns, [C (C - 1) / 2]. weight: [D, C]."""
    units = weight / np.linalg.norm(weight, axis=0)
    pairs = np.triu_indices(weight.shape[1], k=1)
    return np.degrees(np.arccos(np.clip((units.T @ units)[pairs], -1, 1)))
