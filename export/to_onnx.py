"""The same as `python -m deitlt_tf.to_onnx`: a finished run as an ONNX file."""

from deitlt_tf import to_onnx
from deitlt_tf.recipes import command_line

if __name__ == "__main__":
    command_line.program(to_onnx.main, to_onnx.__doc__, from_workdir=True, takes=to_onnx.TAKES)
