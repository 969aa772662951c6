"""Speed and memory of a distillation step: ours against torch and timm, written as the official code is.

    python benchmarks/train_step.py [--settings=tiny,small,cifar] [--precision=float32] [--seconds=20] [--turns=5]

A step mixes images, asks the teacher, computes both losses with class weights and their gradient, and updates AdamW and
the moving average. Sides: `ours` as `train` compiles it; `ours through XLA` with jit_compile=True; timm's distilled
DeiT, its ResNet, Mixup and ModelEma with torch.optim.AdamW, eager and through torch.compile. Batches of 32 images wait
in memory. Each side is a process on all cores; they take turns. Printed are images/s as median (lowest to highest), the
median of the ratios to each side of torch in neighbouring turns, and the most memory of each process. Weights are
random, which does not change the time. Needs the extra [bench].
"""

import os

import turns
from absl import app, flags

BATCH, CLASSES, SIZE = 32, 1000, 224
# Student, teacher, side of the teacher's images in pixels.
SETTINGS = {
    "tiny": ("deit_tiny", "resnet50", 224),
    "small": ("deit_small", "resnet50", 224),
    "cifar": ("deit_tiny", "resnet32", 32),
}

PEERS = ("torch eager", "torch.compile")

CHOSEN = flags.DEFINE_list("settings", list(SETTINGS), f"Settings to measure, of {', '.join(SETTINGS)}.")
PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "bfloat16"], "Precision of the networks.")
SIDES = flags.DEFINE_list("sides", ["ours", "ours through XLA", "torch eager", "torch.compile"], "Sides to measure.")
SECONDS = flags.DEFINE_float("seconds", 20, "Seconds of a turn.")
TURNS = flags.DEFINE_integer("turns", 5, "Turns of each side.", lower_bound=1)


def main(argv: list[str]) -> None:
    del argv
    sides = {
        "ours": (our_side, False),
        "ours through XLA": (our_side, True),
        "torch eager": (torch_side, False),
        "torch.compile": (torch_side, True),
    }
    for setting in CHOSEN.value:
        print(f"\n{setting}: {', '.join(map(str, SETTINGS[setting]))}; {PRECISION.value}, batch {BATCH}")
        print(f"| side | images/s | times {' | times '.join(PEERS)} | MiB |\n|---|---|---|---|---|")
        running = {
            name: turns.Side(make, *SETTINGS[setting], PRECISION.value, compiled, cores=os.cpu_count())
            for name, (make, compiled) in sides.items()
            if name in SIDES.value
        }
        rates = turns.alternate(running, turns=TURNS.value, seconds=SECONDS.value)
        for name, side in running.items():
            ratios = [turns.ratio(rates[name], rates[other]) if other in rates else "-" for other in PEERS]
            cells = [name, turns.spread(rates[name], digits=1), *ratios, f"{side.close():.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


def our_side(
    student: str, teacher: str, teacher_size: int, precision: str, compiled: bool, *, cores: int
) -> turns.Work:
    """The step of `distill.Distiller`, through XLA if `compiled`."""
    import keras
    import numpy as np
    import tensorflow as tf

    from deitlt_tf import distill, models, optimizers

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    if precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    network = models.build(student, num_classes=CLASSES, image_size=SIZE, drop_path=0.1)
    flat = models.build(teacher, num_classes=CLASSES, image_size=teacher_size)
    # XLA has no kernel for the Gamma draws that Beta(0.8, 0.8) needs, so the compiled step does not mix.
    mixing = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0} if compiled else {}
    distiller = distill.Distiller(network, flat, np.arange(CLASSES, 0, -1), mixing=mixing)
    distiller.compile(optimizers.adamw(network, learning_rate=1e-4), jit_compile=compiled)
    step = tf.function(distiller.train_step, jit_compile=compiled)
    draw = np.random.default_rng(0)
    images = tf.constant(draw.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8))
    labels = tf.constant(draw.integers(0, CLASSES, BATCH, dtype=np.int32))

    def work() -> int:
        float(step((images, labels))["loss"])
        return BATCH

    return work


def torch_side(
    student: str, teacher: str, teacher_size: int, precision: str, compiled: bool, *, cores: int
) -> turns.Work:
    """The same step in torch and timm, through torch.compile if `compiled`."""
    import contextlib

    import timm
    import torch
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy
    from timm.models.resnet import BasicBlock, ResNet
    from timm.utils import ModelEma

    torch.set_num_threads(cores)
    network = timm.create_model(f"{student}_distilled_patch16_224", num_classes=CLASSES, drop_path_rate=0.1)
    network.set_distilled_training(True)
    if teacher == "resnet32":  # that of CIFAR: three stages, and no pooling after the stem
        flat = ResNet(BasicBlock, (5, 5, 5), num_classes=CLASSES, channels=(16, 32, 64), stem_width=16)
        flat.conv1, flat.maxpool = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False), torch.nn.Identity()
        flat.bn1, flat.layer4 = torch.nn.BatchNorm2d(16), torch.nn.Identity()
        flat.layer1 = torch.nn.Sequential(*(BasicBlock(16, 16) for _ in range(5)))
    else:
        flat = timm.create_model(teacher, num_classes=CLASSES)
    flat.eval()
    average = ModelEma(network, decay=0.99996)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, switch_prob=0.5, label_smoothing=0.1, num_classes=CLASSES)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.05)
    soft, weights = SoftTargetCrossEntropy(), torch.ones(CLASSES)
    low = precision == "bfloat16"
    cast = (lambda: torch.autocast("cpu", torch.bfloat16)) if low else contextlib.nullcontext
    student_of, teacher_of = (torch.compile(network), torch.compile(flat)) if compiled else (network, flat)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, CLASSES, (BATCH,))

    def work() -> int:
        mixed, targets = mixup(images.clone(), labels)
        with cast():
            cls, dist = student_of(mixed)
            with torch.no_grad():
                view = mixed
                if teacher_size != SIZE:
                    view = torch.nn.functional.interpolate(mixed, size=teacher_size, mode="bicubic")
                answer = teacher_of(view)
            hard = torch.nn.functional.cross_entropy(dist.float(), answer.argmax(1), weight=weights)
            loss = 0.5 * soft(cls.float(), targets) + 0.5 * hard
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(network)
        loss.item()
        return BATCH

    return work


if __name__ == "__main__":
    app.run(main)
