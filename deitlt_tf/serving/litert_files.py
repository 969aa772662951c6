"""LiteRT (.tflite) files of one network: float32, or 8-bit weights; and how to run one."""

import contextlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tqdm import tqdm

from deitlt_tf.runs.files import replacing
from deitlt_tf.serving import check
from deitlt_tf.serving.served import Images, Served

# Dynamic range: int8 weights with one scale per output channel, activations quantised as they come.
OPTIMIZATIONS = {"float32": [], "int8": [tf.lite.Optimize.DEFAULT]}


class Network(keras.Model):
    """What is exported: `Served` as a Keras model."""

    def __init__(self, served: Served):
        super().__init__(name=served.model.name)
        self.network = served.model  # tracked, so that its weights are written
        self.answer = served.__call__

    def call(self, images, training=False):
        return self.answer(images)


def write(served: Served, path: Path, *, kind: str, input_type: str, metadata: dict[str, str]) -> None:
    """`path` of a kind of OPTIMIZATIONS; class names and metadata are attached, as LiteRT's associated files are.

    That is, as a zip archive after the model: `unzip -p NAME.tflite labels.txt` shows the class names.
    """
    size = served.image_size
    images = keras.InputSpec(shape=(None, size, size, 3), dtype=input_type, name="images")
    network = Network(served)
    network(tf.zeros((1, size, size, 3), input_type))  # a model that was never called has nothing to export
    network.export(
        path, format="litert", input_signature=[images], verbose=False, optimizations=OPTIMIZATIONS[kind]
    )  # fmt: skip
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "".join(f"{name}\n" for name in served.class_names))
        for name, text in metadata.items():
            archive.writestr(f"{name}.json", text)


def write_checked(
    served: Served, files: dict[str, Path], *, images: Images, input_type: str, metadata: dict[str, str]
) -> None:
    """Write each file of {kind of OPTIMIZATIONS: path}; a file gets its name once it was compared with Keras."""
    with contextlib.ExitStack() as stack:
        paths = {kind: stack.enter_context(replacing(path)) for kind, path in files.items()}
        for kind, path in tqdm(paths.items(), desc="writing", leave=False):
            write(served, path, kind=kind, input_type=input_type, metadata=metadata)
        check.report(served, images, {kind: (path, runner(path)) for kind, path in paths.items()})
    for path in files.values():
        print(f"{path} written")


def runner(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Pixels [B, S, S, 3] -> named outputs, on all cores."""
    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    signature = interpreter.get_signature_runner("serving_default")
    dtype = signature.get_input_details()["images"]["dtype"]
    return lambda images: signature(images=images.astype(dtype, copy=False))
