"""Names of weights as in the official checkpoints, and loading a state dict by them."""

from collections.abc import Mapping

import keras
import numpy as np

# Keras name of a variable -> torch's, where they differ.
_TORCH = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "layer_scale": "gamma",
}


def torch_name(variable: keras.Variable) -> str:
    """The official name: blocks.0/attn/qkv/kernel -> blocks.0.attn.qkv.weight, tokens/cls_token -> cls_token."""
    *layers, name = variable.path.removeprefix("tokens/").split("/")
    return ".".join([*layers, _TORCH.get(name, name)])


def state_dict(model: keras.Model) -> dict[str, keras.Variable]:
    """The model's variables by their official names, in the model's order. Every name is of one variable only."""
    state = {torch_name(variable): variable for variable in model.variables}
    assert len(state) == len(model.variables), "two variables share a name"
    return state


def is_frozen(variable: keras.Variable) -> bool:
    """Whether a weight was made to be trained, and is not trained: statistics of BatchNorm are not frozen."""
    return not variable.trainable and variable.value.trainable


def changing(model: keras.Model) -> list[keras.Variable]:
    """The variables that training changes, in the model's order: all but the frozen ones."""
    return [variable for variable in model.weights if not is_frozen(variable)]


def _from_torch(value: np.ndarray, variable: keras.Variable) -> np.ndarray:
    """torch's layout -> Keras': Linear [out, in] -> [in, out], convolution OIHW -> HWIO; all else stays."""
    value = np.asarray(value)
    axes = {2: (1, 0), 4: (2, 3, 1, 0)}.get(value.ndim) if variable.name == "kernel" else None
    return value if axes is None else value.transpose(axes)


def load_state(model: keras.Model, state: Mapping[str, np.ndarray]) -> None:
    """Assigns `state` (official name -> array in torch's layout) to the variables of `model`, one key to each.

    torch's `num_batches_tracked` counters are ignored.
    Raises ValueError if keys and variables do not match, before anything is assigned. The message lists variables
    without a key, keys without a variable, and shapes that differ.
    """
    variables = state_dict(model)
    keys = {key for key in state if not key.endswith("num_batches_tracked")}
    values = {name: _from_torch(state[name], variable) for name, variable in variables.items() if name in keys}
    shapes = [
        f"{name} {values[name].shape}, needs {tuple(variables[name].shape)}"
        for name in values
        if values[name].shape != tuple(variables[name].shape)
    ]
    problems = {
        "missing": sorted(variables.keys() - keys),
        "left over": sorted(keys - variables.keys()),
        "shape": shapes,
    }
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(f"these weights do not fit {model.name}: {listed}.")
    for name, value in values.items():
        variables[name].assign(value)
