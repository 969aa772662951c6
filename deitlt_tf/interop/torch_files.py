"""PyTorch files as NumPy arrays; code inside a file never runs.

Files of torch's older, non-zip format need no PyTorch (`torch_pickles`), the others need the extra [torch].
"""

import argparse
import importlib.util
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deitlt_tf.interop import torch_pickles

INSTALL = 'PyTorch is needed for this: python -m pip install "deitlt_tf[torch]".'
# {suffix of the model: names under which training codes of the field keep it}: weights, and their moving average.
WEIGHTS = {"": ("model", "state_dict"), "_ema": ("model_ema", "state_dict_ema")}


def pytorch() -> ModuleType:
    """The module torch. Raises ValueError that says how to install it."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(INSTALL) from error
    return torch


def read(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """{"": weights, "_ema": averaged weights, if any} of a PyTorch file as NumPy arrays, and its training settings.

    Unpickles only tensors, plain values and the classes of `harmless`, which training codes save with them.
    Raises FileNotFoundError, or ValueError for a file that is cut off or holds anything else.
    """
    content = _content(path)

    def arrays(value: object) -> dict[str, np.ndarray]:
        tensors = value if isinstance(value, Mapping) else {}
        if not tensors or not all(isinstance(v, np.ndarray) for v in tensors.values()):
            return {}
        return {name: np.array(v, np.float32 if v.dtype.kind == "f" else None) for name, v in tensors.items()}

    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not named weights.")
    if flat := arrays(content):
        return {"": flat}, {}
    states = {
        key: next(filter(None, (arrays(content.get(name)) for name in names)), {}) for key, names in WEIGHTS.items()
    }
    if not states[""]:
        keys = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ValueError(f"{path} has no weights under {' or '.join(WEIGHTS[''])}: it holds {keys}.")
    settings = content.get("args")
    settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    return {key: state for key, state in states.items() if state}, settings if isinstance(settings, dict) else {}


def _content(path: Path) -> Any:
    """What the file holds, each tensor of a dict a NumPy array. Raises what `read` raises."""
    if importlib.util.find_spec("torch") is None and path.is_file() and not zipfile.is_zipfile(path):
        return old_format(path)
    torch = pytorch()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    try:
        with torch.serialization.safe_globals(harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about files that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each of the readers inside torch.load raises errors of its own
        raise ValueError(refusal(path, str(error))) from error

    def converted(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return np.asarray(value.detach().float() if value.is_floating_point() else value.detach())
        return {name: converted(v) for name, v in value.items()} if isinstance(value, Mapping) else value

    return converted(content)


def old_format(path: Path) -> Any:
    """What a file of torch's older, non-zip format holds, read without PyTorch. Raises what `read` raises."""
    try:
        return torch_pickles.read(path)
    except torch_pickles.Refused as error:
        raise ValueError(refusal(path, f"GLOBAL {error}")) from error
    except ValueError as error:
        raise ValueError(refusal(path, str(error))) from error


def harmless() -> list:
    """Classes that training codes of the field pickle next to weights. Unpickling one runs no code of the file."""
    import pathlib

    scalar = np.float64(0).__reduce__()[0]
    paths = [(pathlib.PurePosixPath, "pathlib.PosixPath"), (pathlib.PureWindowsPath, "pathlib.WindowsPath")]
    paths += [(kind, name.replace("pathlib", "pathlib._local")) for kind, name in paths]  # Python 3.13
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    return [argparse.Namespace, *paths, *scalars, np.dtype, *kinds]


def refusal(path: Path, reason: str) -> str:
    """One sentence that says why a file is refused. reason: the message of torch."""
    if match := re.search(r"(?:GLOBAL|Unsupported (?:global|class|type))\W+(?:GLOBAL )?([\w.]+)", reason):
        cut = "" if zipfile.is_zipfile(path) else ", or is cut off"  # a cut file of torch's older format looks the same
        return f"{path} holds more than weights ({match[1]}){cut}: it was refused, and none of its code was run."
    if "TorchScript" in reason or "Weights only" in reason:
        return f"{path} holds something other than weights: it was refused, and none of its code was run."
    first = reason.partition(". ")[0]
    return f"{path} is not a complete PyTorch file ({first if ' ' in first else 'cut off, or of another kind'})."
