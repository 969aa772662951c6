"""DeiT-LT in TensorFlow / Keras 3: Vision Transformers trained from scratch on long-tailed image collections.

One image from disk to loss, in this order; each file is opened once:

    recipes     flags, command_line, recipe      what a user types -> typed settings
    data        sources, dataset, storage        1 WHERE      images, labels, class names
                decode, augment, randaugment     2 ONE IMAGE  bytes -> pixels -> the training view
                pipeline                         3 BATCHES    order by index: any step can be made again
    models      vit, resnet, efficientnet        4 LOGITS     pixels 0..255 in, named logits out
    mixing, losses, sam, optimizers              5 LOSS       the parts of a step
    step, distill                                6 STEP       mix, ask the teacher, losses, apply
    teacher     Teacher; objectives                           the flat CNN that the student learns from
    devices                                                   replicas, workers, precision, accumulation
    training    student, teacher, loop, keeper                from the last checkpoint to the last step
    runs                                                      a run's folder: files, checkpoints, models
    evaluation                                   7 NUMBERS    head, mid, tail for CLS, DIST and their mean
    report, demo, inspect_data                   8 PICTURES   pages for people
    federated                                                 the same for images that stay with several owners
    interop, serving                                          weights from PyTorch; ONNX, LiteRT, SavedModel

Commands: quick, train, train_teacher, evaluate, federate, inspect_data, report, demo, to_tfds, import_torch, to_onnx,
to_litert, to_saved_model, versions.

`import deitlt_tf` imports neither TensorFlow nor Keras, so `--help` answers at once: submodules load when first used.
It does make `keras.models.load_model` know our layers, whichever of `deitlt_tf` and `keras` is imported first.
"""

import importlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import warnings
from collections.abc import Sequence
from types import ModuleType

__version__ = "0.2.0"

MODULES = (
    "data",
    "demo",
    "devices",
    "distill",
    "evaluation",
    "federated",
    "fetch",
    "graphs",
    "guidance",
    "inspect_data",
    "interop",
    "losses",
    "mixing",
    "models",
    "objectives",
    "optimizers",
    "recipes",
    "report",
    "runs",
    "sam",
    "serving",
    "step",
    "tabulate",
    "teacher",
    "training",
)

# Names of version 0.1 and where their content is now. They go with version 0.3.
MOVED = {
    "metrics": "evaluation.metrics",
    "options": "recipes.command_line",
    "probes": "evaluation.probes",
    "workdir": "runs",
}


def __getattr__(name: str) -> ModuleType:
    """The submodule `name`, imported on first use (PEP 562)."""
    if name in MOVED:
        message = f"deitlt_tf.{name} is deitlt_tf.{MOVED[name]} now; the old name goes with version 0.3."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return importlib.import_module(f"deitlt_tf.{MOVED[name]}")
    if name in MODULES:
        return importlib.import_module(f"deitlt_tf.{name}")
    raise AttributeError(f"module 'deitlt_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})


def _require_tensorflow(backend: str) -> None:
    """Raises ImportError that says where the setting comes from, unless Keras runs on TensorFlow."""
    if backend == "tensorflow":
        return
    setting = "the environment has KERAS_BACKEND"
    if "KERAS_BACKEND" not in os.environ:
        setting = f"{_keras_json()} has it"
    raise ImportError(
        f"deitlt_tf needs Keras on TensorFlow, and this Keras is set to run on {backend} ({setting}): put "
        'os.environ["KERAS_BACKEND"] = "tensorflow" before the first import of keras.'
    )


def _keras_json() -> str:
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.join(home, "keras.json")


def _backend_setting() -> str:
    """The backend that Keras will take, as it reads it: KERAS_BACKEND, else keras.json, else TensorFlow."""
    if backend := os.environ.get("KERAS_BACKEND"):
        return backend
    try:
        with open(_keras_json(), encoding="utf-8") as file:
            return str(json.load(file).get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):  # Keras tells about a file that it cannot read
        return "tensorflow"


class _RegisterAfterKeras(importlib.abc.MetaPathFinder):
    """Imports `deitlt_tf.models` once `keras` has been executed, then leaves `sys.meta_path`.

    Keras looks custom layers up among registered classes only, and registering them takes Keras itself: importing it
    here would cost every program seconds, not doing so would make `load_model` fail where we are imported first.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "keras":
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, others), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_then_register(module: ModuleType) -> None:
            _require_tensorflow(_backend_setting())
            execute(module)
            # TensorFlow asks for this spec only to learn Keras' folder, so the finder stays until Keras is executed.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                importlib.import_module("deitlt_tf.models")

        spec.loader.exec_module = execute_then_register  # type: ignore[method-assign]
        return spec


if "keras" in sys.modules:
    _require_tensorflow(sys.modules["keras"].config.backend())
    importlib.import_module("deitlt_tf.models")
else:
    sys.meta_path.insert(0, _RegisterAfterKeras())
