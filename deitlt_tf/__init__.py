"""DeiT-LT in TensorFlow / Keras 3: Vision Transformers trained from scratch on long-tailed image collections.

The reading order; each file is one station and nothing turns back:

    options       every command-line flag, once (only programs read flags)
    graphs        a function as one program, or as one node, of a graph
    data.storage  1 WHERE      files on disk or behind a URL
    data.splits                images, labels, class names; class counts, long tail, held-out part
    data.sources               where they are: data.folders, data.listings (lists, JSON), data.packaged (TFDS, digits)
    data.augment  2 ONE IMAGE  crop, flip, RandAugment, erasing; the evaluation view
    data.pipeline 3 BATCHES    order by index, repeats, shards, padding mask
    models        4 LOGITS     vit: tokens CLS + DIST; resnet: CIFAR and ImageNet teachers
    mixing                     mixup, cutmix and soft targets of a batch
    losses        5 LOSS       per example; one mean over the global batch at the end
    sam, optimizers            the gradient at perturbed weights; schedules, AdamW, SGD
    distill       6 STEP       Distiller: the student's train_step
    teacher                    Teacher: the flat CNN that it learns from; paco, mdcs, glmc: what else it may learn by
    metrics       7 NUMBERS    overall, head, mid, tail for CLS, DIST and their mean
    teacher_labels             the teacher's classes of all views, kept for the next student
    answers, probes, findings  8 PICTURES   every answer of a run; what the paper plots; intervals, figures, pages
    cluster, devices, loss_scale, workdir, loop
                               replicas and precision; a run's folder; from its last checkpoint to the last step
    finished, onnx_graph       a finished network, and the same as an ONNX graph; local_server, vendor: a page for it
    official, class_order      weights and classes of the PyTorch code; torch_files reads its files
    assemble                   what the programs share: from flags to data, views, networks, numbers
    inspect_data, to_tfds, train, train_teacher, evaluate, report, demo, import_torch      programs

`import deitlt_tf` imports neither TensorFlow nor Keras, so `--help` answers at once: submodules load when first used.
It does make `keras.models.load_model` know our layers, whichever of `deitlt_tf` and `keras` is imported first.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

MODULES = (
    "answers",
    "assemble",
    "class_order",
    "cluster",
    "data",
    "devices",
    "distill",
    "figures",
    "findings",
    "finished",
    "glmc",
    "graphs",
    "intervals",
    "local_server",
    "loop",
    "loss_scale",
    "losses",
    "mdcs",
    "metrics",
    "mixing",
    "models",
    "official",
    "onnx_graph",
    "optimizers",
    "options",
    "paco",
    "pages",
    "probes",
    "sam",
    "teacher",
    "teacher_labels",
    "torch_files",
    "vendor",
    "workdir",
)


def __getattr__(name: str) -> ModuleType:
    """The submodule `name`, imported on first use (PEP 562)."""
    if name in MODULES:
        return importlib.import_module(f"deitlt_tf.{name}")
    raise AttributeError(f"module 'deitlt_tf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})


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
            execute(module)
            # TensorFlow also asks for this spec merely to learn Keras' folder, so only an execution ends the watch.
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                importlib.import_module("deitlt_tf.models")

        spec.loader.exec_module = execute_then_register
        return spec


if "keras" in sys.modules:
    importlib.import_module("deitlt_tf.models")
else:
    sys.meta_path.insert(0, _RegisterAfterKeras())
