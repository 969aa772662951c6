"""The same as `python -m deitlt_tf.to_litert`: a finished run as a LiteRT file."""

from deitlt_tf.to_litert import program

if __name__ == "__main__":
    program()
