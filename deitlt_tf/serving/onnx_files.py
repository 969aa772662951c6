"""Write one graph as ONNX files, in float32, with 8-bit weights, in half precision; and run such a file."""

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
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from tqdm import tqdm

from deitlt_tf.runs.files import replacing
from deitlt_tf.serving import check, onnx_graph
from deitlt_tf.serving.served import Images, Served


def write_float32(model: onnx.ModelProto, path: Path) -> None:
    """Weights and activations float32."""
    onnx.save(model, path)


def write_int8(model: onnx.ModelProto, path: Path) -> None:
    """Weights int8, symmetric, one scale per output channel; activations uint8, with the range of each batch.

    Products of two activations (in attention) and the convolutions of a student's stem stay float32. The images of a
    batch share the ranges, so an output depends slightly on the other images of its batch.
    Raises ValueError for a CNN, because onnxruntime would run 8-bit convolutions more slowly than float32.
    """
    if not any(node.op_type == "LayerNormalization" for node in model.graph.node):
        raise ValueError("--quantize=int8 is for transformers: 8-bit convolutions would be slower, not faster.")
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # onnxruntime advises to simplify the graph first, which would change nothing here
    try:
        quantize_dynamic(
            model, path, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"]
        )
    finally:
        logging.disable(before)


def write_fp16(model: onnx.ModelProto, path: Path) -> None:
    """Weights and activations float16; inputs and outputs keep their types."""
    blocked = [*DEFAULT_OP_BLOCK_LIST, "ScatterElements"]  # onnxruntime adds no float16 there
    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked))
    half.topological_sort()  # because casts around such a node stand at the end
    onnx.save(half.model, path)


WRITERS: dict[str, Callable[[onnx.ModelProto, Path], None]] = {
    "float32": write_float32,
    "int8": write_int8,
    "fp16": write_fp16,
}


def write_checked(
    served: Served, files: dict[str, Path], *, images: Images, input_type: str, metadata: dict[str, str]
) -> None:
    """Write each of `files`, {kind of WRITERS: path}, and compare it with Keras on `images`.

    A file gets its final name after the comparison, so no file is left where `check.report` raises ValueError.
    """
    with contextlib.ExitStack() as stack:
        paths = {kind: stack.enter_context(replacing(path)) for kind, path in files.items()}
        model = onnx_graph.build(
            served.model,
            heads=served.heads,
            adjustment=served.adjustment,
            input_type=input_type,
            metadata=metadata,
            taxonomy=served.taxonomy,
            threshold=served.threshold,
        )
        for kind, path in tqdm(paths.items(), desc="writing", leave=False):
            WRITERS[kind](model, path)
            onnx.checker.check_model(str(path), full_check=True)
        check.report(served, images, {kind: (path, runner(path)) for kind, path in paths.items()})
    for path in files.values():
        print(f"{path} written")


PART = 4  # images that one thread runs at a time


def session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """A session of the file on the CPU. Its threads do not spin while they wait, because others may need the cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def runner(path: Path, *, threads: int = 0, whole: bool = False) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs the file on the CPU: pixels [B, S, S, 3] -> named outputs.

    threads: 0: one for each core. whole: all threads run every batch together.
    Without `whole`, a batch of at least two images per thread is divided into parts of up to PART images, and each
    thread runs parts on its own. A thread then does not wait for the others after every operation, and the results of
    one operation are still in its cache for the next one. A Tiny student at 224 pixels is a fifth to a third faster, a
    small network for 32 pixels a fifth slower (`benchmarks/onnx_latency.py`).
    """
    threads = threads or os.cpu_count() or 1
    together = session(path, threads=threads)
    alone = together if whole else session(path, threads=1)
    names = [output.name for output in together.get_outputs()]
    dtype = np.uint8 if together.get_inputs()[0].type == "tensor(uint8)" else np.float32
    pool = ThreadPoolExecutor(threads)

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        images = images.astype(dtype, copy=False)
        if whole or len(images) < 2 * threads:
            outputs = together.run(names, {"images": images})
        else:
            size = min(PART, -(-len(images) // threads))
            parts = [images[i : i + size] for i in range(0, len(images), size)]
            answers = pool.map(lambda part: alone.run(names, {"images": part}), parts)
            outputs = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
        return dict(zip(names, outputs, strict=True))

    return answer
