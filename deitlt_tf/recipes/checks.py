"""What can be refused from the recipe alone, in the first second: before data are read and anything is trained.

No TensorFlow. What depends on the data, on the devices or on the content of files is checked where that is known.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.recipes.student import Student
from deitlt_tf.recipes.teacher import CLASSIFIERS, Teacher
from deitlt_tf.recipes.views import View

# Channels and heads of the students: `models.vit.SIZES`, which needs TensorFlow.
STUDENTS = {"nano": (128, 4), "tiny": (192, 3), "small": (384, 6), "base": (768, 12), "large": (1024, 16)}
# The teachers of `models.MODELS`.
TEACHERS = (
    *("resnet8", "resnet20", "resnet32", "resnet18_cifar", "resnet34_cifar"),
    *("resnet50", "resnet101", "resnet152", "resnext50"),
    *("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"),
    *("mdcs_resnet8", "mdcs_resnet32", "mdcs_resnet50"),
)
# The pre-trained networks of `interop.backbones.PACKAGES`, and what they take from pixels of 0..1: (x - 127) / 128.
BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
BACKBONE_MEAN, BACKBONE_STD = 127 / 255, 128 / 255
# timm's notation, as far as `data.randaugment.parse` knows it.
PRETRAINED = "pretrained:"  # start of --teacher_init with the name of one of BACKBONES
_DECIMAL = r"\d+(\.\d+)?"
RANDAUGMENT = re.compile(rf"rand(?=.*-inc1(-|$))(-(inc1|m{_DECIMAL}|mstd{_DECIMAL}|n[1-9]\d*|p(0(\.\d+)?|1(\.0+)?)))+")


def check(recipe: Recipe, *, student: bool = True, teacher: bool | None = None) -> None:
    """Raises ValueError with the first of the `mistakes`."""
    for sentence in mistakes(recipe, student=student, teacher=teacher):
        raise ValueError(sentence)


def mistakes(recipe: Recipe, *, student: bool = True, teacher: bool | None = None) -> Iterator[str]:
    """A sentence for each mistake in a recipe that is about to be trained.

    student, teacher: whether they are still to begin. `teacher` defaults to whether the student gets one trained here.
    """
    if student:
        yield from _frozen_mistakes(recipe) if recipe.student.frozen else _student_mistakes(recipe)
    if recipe.trains_teacher if teacher is None else teacher:
        yield from _teacher_mistakes(recipe)


def check_federated(recipe: Recipe) -> None:
    """Raises ValueError with the first of the `federated_mistakes`."""
    for sentence in federated_mistakes(recipe):
        raise ValueError(sentence)


def federated_mistakes(recipe: Recipe) -> Iterator[str]:
    """A sentence for each mistake in a recipe whose clients are about to train together."""
    federated, cnn, vit = recipe.federated, recipe.teacher, recipe.student
    if federated.network == "cnn":
        plain = [name for name in TEACHERS if not name.startswith("mdcs_")]
        if cnn.network.model not in plain:
            yield (
                f"--teacher_model={cnn.network.model} cannot be shared by clients: choose one of {', '.join(plain)}."
            )
        yield from _view_mistakes(cnn.view, prefix="teacher_")
        yield from _pixel_mistakes(cnn.network.mean, cnn.network.std, prefix="teacher_")
        if cnn.view.eval_resize != vit.view.eval_resize:
            yield (
                f"--eval_resize={vit.view.eval_resize} and --teacher_eval_resize={cnn.view.eval_resize} differ: "
                "evaluate and report measure the shared network with the first one. Give them one value."
            )
    else:
        if vit.pretrained:
            yield f"--method={vit.method} does not go with --federated_network=vit: clients train the whole network."
        yield from _network_mistakes(vit)
        yield from _view_mistakes(vit.view, prefix="")
        yield from _pixel_mistakes(vit.network.mean, vit.network.std, prefix="")
    if recipe.run.strategy != "none":
        yield f"--strategy={recipe.run.strategy} has no use here: a client trains on one device."
    if recipe.run.precision == "mixed_float16":
        yield "--precision=mixed_float16 is not offered for clients: take float32 or mixed_bfloat16."
    if federated.clients.dirs and recipe.data.name != "folder":
        yield f"--federated_client_dirs are folders of images, and --data={recipe.data.name} is not: leave it out."
    if federated.clients.dirs and recipe.data.imbalance != 1:
        yield "--imbalance is not imposed on --federated_client_dirs, whose images are all used: set --imbalance=1."
    if len(federated.clients.dirs) == 1:
        yield "--federated_client_dirs names one folder: two clients or more train together."
    for path in federated.clients.dirs:
        if not Path(path).is_dir():
            yield f"--federated_client_dirs: {path} is not a folder."


def uneven_batch(size: int, *, devices: int, parts: int = 1, flag: str) -> str:
    """A sentence if a batch does not split evenly over the devices and over the parts on each of them; else "".

    size: images of a batch. parts: the value of --accumulation. flag: name of the flag that sets `size`.
    """
    if size % (devices * parts) == 0:
        return ""
    return f"--{flag}={size} does not split evenly over {devices} devices with {parts} parts (--accumulation) each."


def wrong_classifier(teacher: Teacher) -> str:
    """A sentence if the teacher's loss cannot train its classifier; else ""."""
    loss, classifier = teacher.objective.loss, teacher.network.classifier
    if classifier in CLASSIFIERS[loss]:
        return ""
    return (
        f"--teacher_loss={loss} cannot train --teacher_classifier={classifier}: set "
        f"--teacher_classifier={' or '.join(CLASSIFIERS[loss])}, or leave it out."
    )


def weighs_twice(teacher: Teacher) -> str:
    """The sentence for DRW on top of a loss that weighs the classes itself."""
    return (
        f"--teacher_reweight_epoch={teacher.schedule.reweight_epoch} does not go with "
        f"--teacher_loss={teacher.objective.loss}, which weighs the classes itself: switch it off with "
        "--teacher_reweight_epoch=-1."
    )


def _start_mistakes(student: Student) -> Iterator[str]:
    """The student's network and the files that it begins with."""
    if not student.takes_backbone:
        yield from _network_mistakes(student)
    elif student.backbone.name not in BACKBONES:
        yield f"--backbone={student.backbone.name} is unknown: choose one of {', '.join(BACKBONES)}."
    init = student.network.init
    if init and not init.startswith("keras_hub:") and not Path(init).is_file():
        yield f"--init={init}: there is no such file."
    yield from _adaptation_mistakes(student)


def _frozen_mistakes(recipe: Recipe) -> Iterator[str]:
    student = recipe.student
    yield from _start_mistakes(student)
    yield from _view_mistakes(student.view, prefix="")
    if recipe.run.strategy != "none":
        yield f"--strategy={recipe.run.strategy}: --method={student.method} runs on one device. Leave it out."


def _student_mistakes(recipe: Recipe) -> Iterator[str]:
    student, network, batch = recipe.student, recipe.student.network, recipe.student.batch
    yield from _start_mistakes(student)
    if not student.schedule.epochs:
        yield f"--epochs=0 trains nothing: --method={student.method} needs 1 or more."
    yield from _view_mistakes(student.view, prefix="")
    yield from _pixel_mistakes(network.mean, network.std, prefix="")
    devices = _known_devices(recipe)
    yield from filter(None, [uneven_batch(batch.size, devices=devices, parts=batch.accumulation, flag="batch_size")])
    yield from _late_reweighting(student, recipe)
    if recipe.teacher.labels and (student.plain or student.distillation.kind != "hard"):
        yield "--teacher_labels holds a teacher's classes: it needs one, and --distillation=hard."
    yield from _guidance_mistakes(recipe)
    if recipe.teacher.path and not student.plain and teacher_file(Path(recipe.teacher.path)) is None:
        yield no_teacher(recipe.teacher.path)


def _guidance_mistakes(recipe: Recipe) -> Iterator[str]:
    student = recipe.student
    weight = student.distillation.guidance
    if student.plain or not weight:
        return
    if recipe.teacher.labels:
        yield (
            f"--guidance={weight:g} compares the student with the teacher's feature maps, which --teacher_labels does "
            "not hold: leave one of them out."
        )
    if student.distillation.teacher_sees == "clean":
        yield f"--guidance={weight:g} needs the teacher to see the student's view: set --teacher_sees=mixed."
    if student.network.depth == 1:
        yield f"--guidance={weight:g} needs --depth of 2 or more: nobody reads the patches of the last block."


def _size_mistakes(student: Student) -> Iterator[str]:
    """A Vision Transformer's width, heads, patches and image."""
    network, size = student.network, student.view.image_size
    width, heads = STUDENTS[network.model.partition("_")[2]]
    width, heads = network.embed_dim or width, network.num_heads or heads
    if width % heads:
        yield f"--num_heads={heads} does not divide --embed_dim={width}: change one of them."
    if network.stem == "conv":
        yield from _stem_mistakes(network.patch_size, width)
    if size % network.patch_size:
        yield f"--image_size={size} is not a multiple of --patch_size={network.patch_size}: change one of them."


def _adaptation_mistakes(student: Student) -> Iterator[str]:
    if not student.pretrained:
        return
    if student.adapts and student.takes_backbone and student.adaptation.tune in ("adaptformer", "lora"):
        yield (
            f"--tune={student.adaptation.tune} is for Vision Transformers: name the file of one with --init=FILE, or "
            f"set --tune=norm, bias, head or all for --backbone={student.backbone.name}."
        )
    path = student.adaptation.head_init
    for file in (path, str(Path(path).with_suffix(".txt"))) if path else ():
        if not Path(file).is_file():
            yield f"--head_init={path}: there is no {file}."


def _stem_mistakes(patch_size: int, width: int) -> Iterator[str]:
    if patch_size < 2 or patch_size & (patch_size - 1):
        yield f"--stem=conv halves the image several times: --patch_size={patch_size} has to be 2, 4, 8, 16 or so."
    elif width % (patch_size // 2):
        yield (
            f"--stem=conv begins with embed_dim * 2 / patch_size channels: --embed_dim={width} has to be a multiple of "
            f"{patch_size // 2}."
        )


def _network_mistakes(student: Student) -> Iterator[str]:
    network = student.network
    names = [f"deit_{size}" for size in STUDENTS]
    plain_names = [f"vit_{size}" for size in STUDENTS] if student.plain else []
    if network.model not in (*names, *plain_names):
        yield f"--model={network.model} is unknown: choose one of {', '.join(names)}."
    else:
        yield from _size_mistakes(student)


def _late_reweighting(student: Student, recipe: Recipe) -> Iterator[str]:
    late, epochs = student.reweight_epoch, student.schedule.epochs
    if late < epochs:
        return
    what = "the loss" if student.plain else "the loss of DIST"
    mixing = ", and mixing would never stop" if student.schedule.mixing_off else ""
    yield (
        f"--reweight_epoch={late} is not below --epochs={epochs}: {what} would never be weighted by class{mixing}. Set "
        f"--reweight_epoch={_scaled(late, recipe, 'epochs')}, the same share of the schedule, or -1 for never."
    )


def _teacher_mistakes(recipe: Recipe) -> Iterator[str]:
    teacher, network = recipe.teacher, recipe.teacher.network
    if network.model not in TEACHERS:
        yield f"--teacher_model={network.model} is unknown: choose one of {', '.join(TEACHERS)}."
    yield from _view_mistakes(teacher.view, prefix="teacher_")
    yield from _randaugment_mistakes(teacher.second_view.randaugment, flag="teacher_second_randaugment")
    yield from _pixel_mistakes(network.mean, network.std, prefix="teacher_")
    devices = _known_devices(recipe)
    yield from filter(None, [uneven_batch(teacher.batch.size, devices=devices, flag="teacher_batch_size")])
    yield from _objective_mistakes(teacher)
    yield from _late_in_teacher(recipe)
    if network.init.startswith(PRETRAINED):
        yield from _pretrained_mistakes(teacher)
    elif network.init and not Path(network.init).is_file():
        yield f"--teacher_init={network.init}: there is no such file."


def _pretrained_mistakes(teacher: Teacher) -> Iterator[str]:
    network = teacher.network
    name = network.init.removeprefix(PRETRAINED)
    if name not in BACKBONES:
        yield f"--teacher_init={network.init}: there are no such weights. Choose {' or '.join(BACKBONES)}."
    elif name != network.model:
        yield f"--teacher_init={network.init} does not fit --teacher_model={network.model}: set --teacher_model={name}."
    elif any(abs(x - BACKBONE_MEAN) > 1e-3 for x in network.mean) or any(
        abs(x - BACKBONE_STD) > 1e-3 for x in network.std
    ):
        mean, std = (",".join([f"{x:.6f}"] * 3) for x in (BACKBONE_MEAN, BACKBONE_STD))
        yield f"--teacher_init={network.init} needs --teacher_mean={mean} and --teacher_std={std}."


def teacher_file(path: Path) -> Path | None:
    """The network that --teacher=PATH names: PATH itself, or in a folder teacher.keras, else student.keras; or None."""
    files = (path / "teacher.keras", path / "student.keras") if path.is_dir() else (path,)
    return next(filter(Path.is_file, files), None)


def no_teacher(path: str) -> str:
    """The sentence for --teacher=PATH where `teacher_file` is None."""
    return f"--teacher={path}: there is no {Path(path) / 'teacher.keras' if Path(path).is_dir() else path}."


def _objective_mistakes(teacher: Teacher) -> Iterator[str]:
    loss, model, late = teacher.objective.loss, teacher.network.model, teacher.schedule.reweight_epoch
    experts = [name for name in TEACHERS if name.startswith("mdcs_")]
    if loss == "mdcs" and model in TEACHERS and model not in experts:
        yield f"--teacher_loss=mdcs trains three experts: as --teacher_model choose one of {', '.join(experts)}."
    if loss in ("ldam", "paco", "glmc") and model in experts:
        yield f"--teacher_loss={loss} does not go with --teacher_model={model}: choose another model, or the loss mdcs."
    yield from filter(None, [wrong_classifier(teacher)])
    if loss in ("mdcs", "glmc") and late >= 0:
        yield weighs_twice(teacher)


def _late_in_teacher(recipe: Recipe) -> Iterator[str]:
    """What is set for an epoch that the teacher does not reach: re-weighting, drops of the rate, steps of SAM."""
    schedule, sam = recipe.teacher.schedule, recipe.teacher.sam
    late, epochs = schedule.reweight_epoch, schedule.epochs
    if late >= epochs and recipe.teacher.objective.loss not in ("mdcs", "glmc"):
        yield (
            f"--teacher_reweight_epoch={late} is not below --teacher_epochs={epochs}: the teacher's loss would never "
            f"be weighted by class. Set --teacher_reweight_epoch={_scaled(late, recipe, 'teacher_epochs')}, the same "
            "share of the schedule, or -1 for never."
        )
    steps = {"teacher_rho_steps": ("the radius of SAM would never change", sam.rho_steps)}
    if schedule.shape == "drops":
        steps["teacher_drops"] = ("the learning rate would never fall", schedule.drops)
    for flag, (effect, by_epoch) in steps.items():
        if not by_epoch or max(by_epoch) < epochs:
            continue
        latest = max(by_epoch)
        scaled = {_scaled(epoch, recipe, "teacher_epochs", latest=latest): x for epoch, x in sorted(by_epoch.items())}
        values = ",".join(f"{epoch}:{x:g}" for epoch, x in scaled.items())
        remedy = f"--{flag}={values}, the same shares of the schedule, or " if len(scaled) == len(by_epoch) else ""
        yield (
            f"--{flag}={','.join(recipe.flags[flag])}: epoch {latest} is not below --teacher_epochs={epochs}, so "
            f"{effect} there. Set {remedy}--{flag}= for none."
        )


def _scaled(epoch: int, recipe: Recipe, flag: str, *, latest: int | None = None) -> int:
    """The epoch at the same share of the schedule as `epoch` is in the recipe that has set it.

    flag: the flag of the schedule's length. latest: the last of the epochs that were set together. Defaults to `epoch`.
    That recipe's length is the last one that holds them all; where there is none, they are taken to end at nine tenths.
    """
    latest = epoch if latest is None else latest
    epochs = recipe.flags[flag]
    length = next((n for n in reversed(recipe.lengths.get(flag, ())) if n > latest), latest / 0.9)
    return min(epochs - 1, int(epoch * epochs / length))


def _view_mistakes(view: View, *, prefix: str) -> Iterator[str]:
    if 0 < view.eval_resize < view.image_size:
        yield (
            f"--{prefix}eval_resize={view.eval_resize} is smaller than --{prefix}image_size={view.image_size}: the "
            f"view at test time is cut out of it. Choose at least {view.image_size}, or 0 for no crop."
        )
    yield from _randaugment_mistakes(view.randaugment, flag=f"{prefix}randaugment")


def _randaugment_mistakes(text: str, *, flag: str) -> Iterator[str]:
    if text and not RANDAUGMENT.fullmatch(text):
        yield (
            f"--{flag}={text}: only rand-...-inc1 is offered, with the settings m, mstd, n and p; an example is "
            "rand-m9-mstd0.5-inc1."
        )


def _pixel_mistakes(mean: tuple[float, ...], std: tuple[float, ...], *, prefix: str) -> Iterator[str]:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            text = ",".join(f"{x:g}" for x in values)
            yield f"--{prefix}{name}={text} has to be three numbers{', each above 0' if name == 'std' else ''}."


def _known_devices(recipe: Recipe) -> int:
    """Number of devices as far as the recipe says it: GPUs are counted later."""
    return max(1, recipe.run.logical_cpus) if recipe.run.strategy == "mirrored" else 1
