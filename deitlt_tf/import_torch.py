"""Bring weights over from PyTorch, into a workdir that evaluate, report and export take; and back (extra [torch]).

    python -m deitlt_tf.import_torch --checkpoint=student.pth --workdir=runs/official --flagfile=configs/cifar10_lt.cfg
    python -m deitlt_tf.import_torch --checkpoint=teacher.pth.tar --workdir=runs/official
    python -m deitlt_tf.import_torch --workdir=runs/first --to_torch=student_timm.pth

What a file holds is recognised by its weights: DeiT-LT students, PaCo and LDAM teachers, DeiT and ViT of
facebookresearch/deit and timm, torchvision ResNets. A student and its teacher may share a workdir. The data flags name
the classes; images need not be there, and --train_list or --class_names_file alone will do. Code in a file never runs.
"""

from types import SimpleNamespace

from deitlt_tf.interop import imports
from deitlt_tf.recipes import command_line


def main(flags: SimpleNamespace) -> None:
    if not flags.workdir:
        raise ValueError("--workdir is missing: name the folder where the imported model is kept.")
    if not flags.to_torch and not flags.checkpoint:
        raise ValueError("--checkpoint is missing: name a PyTorch file (or, for the way back, --to_torch=FILE).")
    from deitlt_tf.devices.strategy import prepare

    prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
    (imports.export if flags.to_torch else imports.bring)(flags)


if __name__ == "__main__":
    command_line.program(main, __doc__, takes=("checkpoint", "class_order", "to_torch"))
