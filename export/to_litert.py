"""The same as `python -m deitlt_tf.to_litert`: a finished run as a LiteRT file."""

from deitlt_tf import to_litert
from deitlt_tf.recipes import command_line

if __name__ == "__main__":
    command_line.program(to_litert.main, to_litert.__doc__, from_workdir=True, takes=to_litert.TAKES)
