"""ONNX files of one graph: as it is, with 8-bit weights, in half precision; and how to run one."""

import contextlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from tqdm import tqdm

from deitlt_tf.runs.files import replacing
from deitlt_tf.serving import check, onnx_graph
from deitlt_tf.serving.served import Images, Served


def write_float32(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, path)


def write_int8(model: onnx.ModelProto, path: Path) -> None:
    """Weights int8, symmetric, one scale per output channel; activations uint8, their range taken from each batch.

    Products of two activations (in attention) stay float32. An answer depends a little on the images beside it, which
    share its ranges. Raises ValueError for a network of convolutions, which
    onnxruntime would run more slowly than before.
    """
    if any(node.op_type == "Conv" for node in model.graph.node):
        raise ValueError("--quantize=int8 is for transformers: 8-bit convolutions would be slower, not faster.")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # advice to preprocess a graph that has nothing left to simplify
    try:
        quantize_dynamic(
            model, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
    finally:
        logging.disable(before)


def write_fp16(model: onnx.ModelProto, path: Path) -> None:
    """Weights and activations float16; inputs and outputs keep their types."""
    onnx.save(convert_float_to_float16(model, keep_io_types=True), path)


WRITERS: dict[str, Callable[[onnx.ModelProto, Path], None]] = {
    "float32": write_float32,
    "int8": write_int8,
    "fp16": write_fp16,
}


def write_checked(
    served: Served, files: dict[str, Path], *, images: Images, input_type: str, metadata: dict[str, str]
) -> None:
    """Write each file of {kind of WRITERS: path}; a file gets its name once it was compared with Keras on `images`."""
    with contextlib.ExitStack() as stack:
        paths = {kind: stack.enter_context(replacing(path)) for kind, path in files.items()}
        model = onnx_graph.build(
            served.model,
            heads=served.heads,
            adjustment=served.adjustment,
            input_type=input_type,
            metadata=metadata,
        )
        for kind, path in tqdm(paths.items(), desc="writing", leave=False):
            WRITERS[kind](model, path)
            onnx.checker.check_model(str(path), full_check=True)
        check.report(served, images, {kind: (path, runner(path)) for kind, path in paths.items()})
    for path in files.values():
        print(f"{path} written")


PART = 4  # images


def session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """The file on the CPU. Threads do not wait by spinning: that takes the cores from whoever else has work."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(path: Path, *, threads: int = 0, whole: bool = False) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Pixels [B, S, S, 3] -> named outputs, on the CPU. threads: 0 for one for each core.

    From two images a thread on, each thread works off parts of up to PART images by itself. `whole`: all threads work
    off the batch together, as they do with a single image. By parts, nobody waits for the others after every
    operation, and what a part has computed is still in the cache for the next one: a Tiny student at 224 is a fifth
    to a third faster (`benchmarks/onnx_latency.py`). A network for 32 pixels, small enough anyway, is a fifth slower.
    """
    threads = threads or os.cpu_count() or 1
    together, alone = session(path, threads=threads), None if whole else session(path, threads=1)
    names = [output.name for output in together.get_outputs()]
    dtype = np.uint8 if together.get_inputs()[0].type == "tensor(uint8)" else np.float32
    pool = ThreadPoolExecutor(threads)

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        images = images.astype(dtype, copy=False)
        if whole or len(images) < 2 * threads:
            found = together.run(names, {"images": images})
        else:
            size = min(PART, -(-len(images) // threads))
            parts = [images[i : i + size] for i in range(0, len(images), size)]
            answers = pool.map(lambda part: alone.run(names, {"images": part}), parts)
            found = [np.concatenate(outputs) for outputs in zip(*answers, strict=True)]
        return dict(zip(names, found, strict=True))

    return answer
