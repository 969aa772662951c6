"""The same as `python -m deitlt_tf.to_saved_model`: a finished run as a SavedModel."""

from deitlt_tf.to_saved_model import program

if __name__ == "__main__":
    program()
