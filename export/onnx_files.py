"""ONNX files of one graph: as it is, with 8-bit weights, in half precision; and how to run one."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16


def write_float32(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, path)


def write_int8(model: onnx.ModelProto, path: Path) -> None:
    """Weights int8, symmetric, one scale per output channel; activations uint8, their range taken from each batch.

    Products of two activations (in attention) stay float32. Raises ValueError for a network of convolutions, which
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


def runner(path: Path, *, threads: int = 0) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Pixels [B, S, S, 3] -> named outputs, on the CPU. threads: 0 for all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that wait by spinning would take the cores from whatever the file is compared with.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    dtype = np.uint8 if session.get_inputs()[0].type == "tensor(uint8)" else np.float32

    def answer(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"images": images.astype(dtype, copy=False)}), strict=True))

    return answer
