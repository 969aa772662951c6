"""The same as `python -m deitlt_tf.to_saved_model`: a finished run as a SavedModel."""

from deitlt_tf import to_saved_model
from deitlt_tf.recipes import command_line

if __name__ == "__main__":
    command_line.program(to_saved_model.main, to_saved_model.__doc__, from_workdir=True, takes=to_saved_model.TAKES)
