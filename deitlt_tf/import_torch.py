"""Import PyTorch weights into a workdir for evaluate, report and export, or export a student (extra [torch]).

    python -m deitlt_tf.import_torch --flagfile=configs/cifar10_lt.cfg --checkpoint=student.pth --workdir=runs/official
    python -m deitlt_tf.import_torch --checkpoint=teacher.pth.tar --workdir=runs/official
    python -m deitlt_tf.import_torch --workdir=runs/first --to_torch=student_timm.pth

The program recognises a network by its weights: DeiT-LT students, PaCo and LDAM teachers, DeiT and ViT of
facebookresearch/deit and timm, torchvision ResNets. A student and its teacher may share a workdir. The data flags name
the classes: --train_list or --class_names_file is enough, and the images need not exist. Code in a file never runs.
"""

from pathlib import Path

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.imported import flags_of, stated
from deitlt_tf.recipes.recipe import Recipe, as_text


def main(recipe: Recipe, *, checkpoint: str, class_order: str, to_torch: str) -> None:
    if not recipe.run.workdir:
        raise ValueError("--workdir is missing: name the folder for the imported model.")
    if not to_torch and not checkpoint:
        raise ValueError(
            "--checkpoint is missing: name a PyTorch file to import, or with --to_torch=FILE one to write."
        )
    from deitlt_tf.devices.strategy import prepare
    from deitlt_tf.interop import imports
    from deitlt_tf.runs.folder import write_flags
    from deitlt_tf.runs.lock import locked

    prepare(**recipe.run.numerics())
    folder, cfg = recipe.run.folder, recipe.run.folder / "flags.cfg"
    if to_torch:
        imports.save_for_timm(folder, Path(to_torch))
        return
    with locked(folder):
        network = imports.import_checkpoint(
            Path(checkpoint),
            folder,
            num_heads=recipe.student.network.num_heads,
            stated={role: stated(recipe, teacher=role == "teacher") for role in ("student", "teacher")},
            data=imports.training_data(recipe.data.name, **recipe.data.source()),
            class_names_file=recipe.data.class_names_file,
            class_order=class_order,
            ldam_scale=recipe.teacher.objective.scale,
        )
        earlier = dict(command_line.recipe_of(["", *command_line.read_flagfile(cfg)]).flags) if cfg.is_file() else {}
        explicit = recipe.explicit_flags
        flags = earlier | {name: x for name, x in recipe.flags.items() if name in explicit or name not in earlier}
        described = flags_of(network.name, network.options, mean=network.mean, std=network.std, recipe=recipe)
        write_flags(folder, as_text(flags | described))
        print(f"{folder}: flags.cfg, class_names.txt, results.json")


def program() -> None:
    command_line.program(main, __doc__, takes=("checkpoint", "class_order", "to_torch"))


if __name__ == "__main__":
    program()
