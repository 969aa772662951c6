"""The same as `python -m deitlt_tf.to_onnx`: a finished run as an ONNX file."""

from deitlt_tf.to_onnx import program

if __name__ == "__main__":
    program()
