"""Write one network as LiteRT (.tflite) files, in float32 or with 8-bit weights; and run such a file."""

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

# int8 is dynamic range quantisation: int8 weights with one scale per output channel, activations quantised at run time.
OPTIMIZATIONS = {"float32": [], "int8": [tf.lite.Optimize.DEFAULT]}


class ServedModel(keras.Model):
    """A `Served` network as a Keras model, which Keras can export."""

    def __init__(self, served: Served) -> None:
        super().__init__(name=served.model.name)
        self.network = served.model  # tracked, so that its weights are written
        self.answer = served.__call__

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        return self.answer(images)


def write(served: Served, path: Path, *, kind: str, input_type: str, metadata: dict[str, str]) -> None:
    """Write the network to `path`, with its class names and metadata.

    kind: a key of OPTIMIZATIONS. input_type: of the pixels, "uint8" or "float32". metadata: {name: JSON text}.
    As LiteRT's associated files, names and metadata are in a zip archive after the model:
    `unzip -p NAME.tflite labels.txt` shows the class names.
    """
    size = served.image_size
    images = keras.InputSpec(shape=(None, size, size, 3), dtype=input_type, name="images")
    network = ServedModel(served)
    network(tf.zeros((1, size, size, 3), input_type))  # Keras cannot export a model before its first call
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
    """Write each of `files`, {kind of OPTIMIZATIONS: path}, and compare it with Keras on `images`.

    A file gets its final name after the comparison, so no file is left where `check.report` raises ValueError.
    """
    with contextlib.ExitStack() as stack:
        paths = {kind: stack.enter_context(replacing(path)) for kind, path in files.items()}
        for kind, path in tqdm(paths.items(), desc="writing", leave=False):
            write(served, path, kind=kind, input_type=input_type, metadata=metadata)
        check.report(served, images, {kind: (path, runner(path)) for kind, path in paths.items()})
    for path in files.values():
        print(f"{path} written")


def runner(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs the file on all cores: pixels [B, S, S, 3] -> named outputs."""
    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    signature = interpreter.get_signature_runner("serving_default")
    dtype = signature.get_input_details()["images"]["dtype"]
    return lambda images: signature(images=images.astype(dtype, copy=False))
