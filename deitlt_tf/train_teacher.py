"""Train the flat CNN teacher alone: a convolutional network with SAM over a long-tail loss.

    python -m deitlt_tf.train_teacher --flagfile=configs/cifar10_lt.cfg --workdir=runs/c10

takes the same recipes as `train`, reads their --teacher_* and data flags, and leaves WORKDIR/teacher/teacher.keras,
which `train --workdir=runs/c10`, or `train --teacher=runs/c10/teacher`, uses. Killed and started again, it goes on.
"""

from types import SimpleNamespace

from deitlt_tf.recipes import command_line
from deitlt_tf.training import teacher


def main(flags: SimpleNamespace) -> None:
    folder = teacher.folder_of(flags)
    from deitlt_tf.devices.strategy import prepare, running
    from deitlt_tf.runs.data import load_splits

    with running(flags.strategy, logical_cpus=flags.logical_cpus, timeout_seconds=flags.worker_timeout):
        prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
        teacher.train_teacher(flags, load_splits(flags, folder=folder))


if __name__ == "__main__":
    command_line.program(main, __doc__)
