"""What the tests of interop share: weights of a student, its moving average, a teacher; PyTorch if installed."""

import numpy as np
import pytest
from helpers.state_dicts import IMPORTED

from deitlt_tf import models
from deitlt_tf.interop import torch_weights


@pytest.fixture(scope="module")
def states() -> dict[str, dict[str, np.ndarray]]:
    """Weights with the official names: a student, its moving average, a teacher."""
    rng = np.random.default_rng(0)
    student = torch_weights.to_torch(models.build("deit_nano", **IMPORTED))
    teacher = torch_weights.to_torch(models.build("resnet8", num_classes=3, image_size=32))

    def drawn(like):
        return {name: rng.uniform(0.1, 0.9, v.shape).astype(np.float32) for name, v in like.items()}

    return {"student": drawn(student), "ema": drawn(student), "teacher": drawn(teacher)}


@pytest.fixture
def torch():
    return pytest.importorskip("torch")
