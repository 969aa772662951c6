"""An estimate of what the recipes for GPUs cost: operations, GPU hours, images/s that the pipeline must deliver.

    python benchmarks/cost.py [--tflops=100] [--recipes=cifar10_lt --recipes=inat18]

TensorFlow's profiler counts the operations in the graphs of the networks (2 for a multiplication and an addition; one
forward pass of one image). A training view costs three forward passes of the student (one forward, two backward) and
one of the teacher. A view in the teacher's own training costs three passes, six with SAM, and one more for the key of
PaCo. GPU hours are operations / --tflops, the speed that a GPU reaches in practice: 100 is a third of the peak of an
A100 in bfloat16. The images/s are those of the student at that speed: with a slower input pipeline the GPU waits. No
number of this table was measured on a GPU.
"""

from pathlib import Path

from absl import app, flags

CONFIGS = Path(__file__).parents[1] / "configs"
# Training images, from the notes of the recipes.
IMAGES = {
    "biotrove": 33_364 * 200 * 8 // 10 * 98 // 100,  # at most: all species full, without the held-out images
    "cifar10_lt": 12_406,
    "cifar10_lt_paco": 12_406,
    "cifar100_lt": 10_847,
    "folder": 12_000,  # for which docs/how_to/recipe.md gives the times
    "imagenet_lt": 115_846,
    "imagenet_lt_paco": 115_846,
    "inat18": 437_513,
    "inat18_paco": 437_513,
    "places_lt": 62_500,
}
CLASSES = {
    "biotrove": 33_364,
    "cifar10_lt": 10,
    "cifar100_lt": 100,
    "folder": 10,
    "imagenet_lt": 1000,
    "inat18": 8142,
    "places_lt": 365,
}

TFLOPS = flags.DEFINE_float("tflops", 100.0, "Speed of one GPU in practice, 10^12 operations/s.", lower_bound=0.001)
RECIPES = flags.DEFINE_multi_enum("recipes", list(IMAGES), list(IMAGES), "Recipes to estimate; may be repeated.")


def main(argv: list[str]) -> None:
    del argv
    from deitlt_tf.recipes import command_line

    titles = ["recipe", "GFLOP a view", "10^18 FLOP, student", "teacher", "GPU hours", "images/s a GPU"]
    print(f"| {' | '.join(titles)} |\n|" + "---|" * len(titles))
    for name in RECIPES.value:
        recipe = command_line.recipe_of(["cost", f"--flagfile={CONFIGS / name}.cfg"])
        print("| " + " | ".join(row(name, recipe)) + " |", flush=True)


def row(name: str, recipe) -> list[str]:
    """The cells of a recipe. recipe: `deitlt_tf.recipes.recipe.Recipe`."""
    from deitlt_tf.data import pipeline

    classes = CLASSES[name.removesuffix("_paco")]
    student, teacher = recipe.student, recipe.teacher
    batch, teacher_batch = student.batch, teacher.batch
    steps = student.schedule.epochs * pipeline.steps_per_epoch(IMAGES[name], batch=batch.size, repeats=batch.repeats)
    forward_student = forward(
        student.network.model,
        student.view.image_size,
        classes,
        patch_size=student.network.patch_size,
        stem=student.network.stem,
    )
    forward_teacher = forward(teacher.network.model, teacher.view.image_size, classes)
    view = 3 * forward_student + forward_teacher
    total = steps * batch.size * view
    teacher_steps = teacher.schedule.epochs * pipeline.steps_per_epoch(IMAGES[name], batch=teacher_batch.size)
    # The keys of PaCo take one more forward pass.
    passes = 3 * (2 if teacher.sam.rho else 1) + (teacher.objective.loss == "paco")
    teaching = teacher_steps * teacher_batch.size * passes * forward_teacher
    speed = TFLOPS.value * 1e12
    return [
        f"`{name}.cfg`",
        f"{view / 1e9:.0f}",
        f"{total / 1e18:.2g}",
        f"{teaching / 1e18:.2g}",
        f"{(total + teaching) / speed / 3600:.1f}",
        f"{speed / view:.0f}",
    ]


def forward(model: str, size: int, classes: int, **options) -> float:
    """Operations of one forward pass of one image."""
    import tensorflow as tf

    from deitlt_tf import models

    network = models.build(model, num_classes=classes, image_size=size, **options)
    signature = [tf.TensorSpec([1, size, size, 3])]
    graph = tf.function(lambda x: network(x, training=False), input_signature=signature).get_concrete_function().graph
    quiet = tf.compat.v1.profiler.ProfileOptionBuilder(tf.compat.v1.profiler.ProfileOptionBuilder.float_operation())
    return tf.compat.v1.profiler.profile(graph, options=quiet.with_empty_output().build()).total_float_ops


if __name__ == "__main__":
    app.run(main)
