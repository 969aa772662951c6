"""What the published recipes cost: operations, images/s that the pipeline must deliver, GPU hours. An estimate.

    python benchmarks/cost.py [--tflops=100]

Operations are counted in the graphs of the networks that the recipes build (TensorFlow's profiler: 2 per multiplication
and addition, forward, one image). A training view costs the student three forward passes (one there, two back) and the
teacher one; a teacher's own view costs three, twice with SAM, and one for PaCo's key. GPU hours = operations /
--tflops, what a GPU really does a second: 100 is a third of an A100's peak in bfloat16. The images/s are those of the
student at that speed: an input pipeline that delivers less makes the GPU wait. Not measured on a GPU.
"""

from pathlib import Path

from absl import app, flags

CONFIGS = Path(__file__).parent.parent / "configs"
# Training images, from the recipes' notes.
IMAGES = {
    "cifar10_lt": 12_406,
    "cifar10_lt_paco": 12_406,
    "cifar100_lt": 10_847,
    "imagenet_lt": 115_846,
    "imagenet_lt_paco": 115_846,
    "inat18": 437_513,
    "inat18_paco": 437_513,
    "places_lt": 62_500,
}
CLASSES = {"cifar10_lt": 10, "cifar100_lt": 100, "imagenet_lt": 1000, "inat18": 8142, "places_lt": 365}

TFLOPS = flags.DEFINE_float("tflops", 100.0, "What one GPU does, 10^12 operations/s.", lower_bound=0.001)


def main(argv: list[str]) -> None:
    del argv
    from deitlt_tf.recipes import command_line

    titles = ["recipe", "GFLOP a view", "10^18 FLOP, student", "teacher", "GPU hours", "images/s a GPU"]
    print(f"| {' | '.join(titles)} |\n|" + "---|" * len(titles))
    for name in IMAGES:
        flags_of = command_line.parse(["cost", f"--flagfile={CONFIGS / name}.cfg"])
        print("| " + " | ".join(row(name, flags_of)) + " |", flush=True)


def row(name: str, recipe) -> list[str]:
    from deitlt_tf.data import pipeline

    classes = CLASSES[name.removesuffix("_paco")]
    steps = recipe.epochs * pipeline.steps_per_epoch(IMAGES[name], batch=recipe.batch_size, repeats=recipe.repeats)
    student = forward(recipe.model, recipe.image_size, classes, patch_size=recipe.patch_size)
    teacher = forward(recipe.teacher_model, recipe.teacher_image_size, classes)
    view = 3 * student + teacher
    total = steps * recipe.batch_size * view
    teacher_steps = recipe.teacher_epochs * pipeline.steps_per_epoch(IMAGES[name], batch=recipe.teacher_batch_size)
    # PaCo's keys come from one forward pass more.
    passes = 3 * (2 if recipe.teacher_rho else 1) + (recipe.teacher_loss == "paco")
    teaching = teacher_steps * recipe.teacher_batch_size * passes * teacher
    speed = TFLOPS.value * 1e12
    return [
        f"`{name}.cfg`",
        f"{view / 1e9:.0f}",
        f"{total / 1e18:.2g}",
        f"{teaching / 1e18:.2g}",
        f"{(total + teaching) / speed / 3600:.0f}",
        f"{speed / view:.0f}",
    ]


def forward(model: str, size: int, classes: int, **options) -> float:
    """Operations of one image's forward pass."""
    import tensorflow as tf

    from deitlt_tf import models

    network = models.build(model, num_classes=classes, image_size=size, **options)
    signature = [tf.TensorSpec([1, size, size, 3])]
    graph = tf.function(lambda x: network(x, training=False), input_signature=signature).get_concrete_function().graph
    quiet = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    return tf.compat.v1.profiler.profile(graph, options=quiet.with_empty_output().build()).total_float_ops


if __name__ == "__main__":
    app.run(main)
