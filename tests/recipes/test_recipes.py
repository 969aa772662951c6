"""Every recipe parses, builds its networks and views, says how it is run, and the paper's are the paper's."""

import functools
import re
import shlex

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT

from deitlt_tf import losses, models
from deitlt_tf.data import augment, pipeline
from deitlt_tf.data.dataset import long_tail_counts
from deitlt_tf.interop import torch_weights
from deitlt_tf.models import adapters, resnet
from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import OURS
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.training import adapting
from deitlt_tf.training.networks import student_network, teacher_network
from deitlt_tf.training.teacher import learning_rate, make_objective, training_view

CONFIGS = ROOT / "configs"
RECIPES = {path.stem: path for path in sorted(CONFIGS.glob("*.cfg"))}

# Classes of the data of each recipe; seven where it is the user's.
CLASSES = {
    "adapt": 7,
    "adapt_cifar100_lt": 100,
    "adapt_efficientnet": 7,
    "adapt_imagenet_lt": 1000,
    "adapt_inat18": 8142,
    "adapt_places_lt": 365,
    "base": 7,
    "biotrove": 33364,
    "cifar100_lt": 100,
    "cifar100_lt_r50": 100,
    "cifar10_lt": 10,
    "cifar10_lt_best": 10,
    "cifar10_lt_r50": 10,
    "cifar10_lt_paco": 10,
    "cifar10_lt_r50_paco": 10,
    "cifar100_lt_paco": 100,
    "cifar100_lt_r50_paco": 100,
    "digits_lt": 10,
    "federated_cifar10_lt": 10,
    "federated_digits_lt": 10,
    "folder": 7,
    "folder_medium": 7,
    "folder_medium_minutes": 7,
    "folder_medium_night": 7,
    "folder_small": 7,
    "folder_small_minutes": 7,
    "folder_small_night": 7,
    "imagenet_lt": 1000,
    "inat18": 8142,
    "inat21_mini": 10000,
    "imagenet_lt_paco": 1000,
    "inat18_paco": 8142,
    "places_lt": 365,
    "places_lt_pretrained": 365,
    "quick": 7,
    "quick_clip": 7,
    "table": 7,
    "teacher_cifar": 7,
    "teacher_cifar_glmc": 7,
    "teacher_cifar_mdcs": 7,
    "teacher_cifar_paco": 7,
    "teacher_pretrained": 7,
    "teacher_imagenet_mdcs": 1000,
    "teacher_imagenet_paco": 1000,
    "teacher_inat_paco": 8142,
    "teacher_imagenet": 1000,
    "teacher_inat": 8142,
}

# Training images, GPUs of the official run, epochs, K, peak learning rate, optimiser steps, and accuracies of the
# plain ViT, the teacher and the student. Source: DeiT-LT tables 1 to 4; official sh/train_*.sh.
PAPER = {
    "cifar10_lt": (12406, 2, 1200, 1100, 2.5e-4, 14400, (62.6, 81.9, 84.8)),
    "cifar10_lt_r50": (13996, 2, 1200, 1100, 2.5e-4, 15600, (70.1, 84.8, 87.5)),
    "cifar100_lt": (10847, 2, 1200, 1100, 2.5e-4, 12000, (35.0, 45.4, 52.0)),
    "cifar100_lt_r50": (12608, 2, 1200, 1100, 2.5e-4, 14400, (39.0, 49.4, 54.1)),
    "imagenet_lt": (115846, 4, 1400, 1200, 5e-4, 78400, (37.5, 53.1, 55.6)),
    "inat18": (437513, 4, 1000, 900, 5e-4, 213000, (54.2, 70.1, 72.9)),
}
# Accuracies of the teacher of the second kind, PaCo + SAM, and of its student. Source: as above.
SECOND = {
    "cifar10_lt": (86.8, 87.5),
    "cifar10_lt_r50": (88.6, 89.8),
    "cifar100_lt": (52.8, 55.6),
    "cifar100_lt_r50": (56.6, 60.5),
    "imagenet_lt": (57.5, 59.1),
    "inat18": (73.4, 75.1),
}
SHARED = {
    "method": "deit_lt", "model": "deit_base", "image_size": 224, "patch_size": 16, "drop_path": 0.1,
    "crop": "resized", "crop_min_scale": 0.08, "flip": True, "randaugment": "rand-m9-mstd0.5-inc1", "erasing": 0.25,
    "repeats": 3, "warmup_epochs": 5, "warmup_lr": 1e-6, "min_lr": 1e-5, "weight_decay": 0.05, "clip_norm": 0,
    "ema_decay": 0.99984, "mixup": 0.8, "cutmix": 1, "mix_prob": 1, "switch_prob": 0.5, "smoothing": 0.1,
    "distillation": "hard", "alpha": 0.5, "beta": 0.9999,
}  # fmt: skip
TEACHERS = {
    "teacher_cifar": {
        "model": "resnet32", "image_size": 32, "crop": "padded", "padding": 4, "max_margin": 0.5, "rho": 0.8,
        "epochs": 200, "batch_size": 128, "lr": 0.1, "schedule": "drops", "drops": ["160:0.01", "180:0.0001"],
        "warmup_epochs": 5, "l2": 2e-4, "reweight_epoch": 160,
    },
    "teacher_imagenet": {
        "model": "resnet50", "image_size": 224, "crop": "resized", "max_margin": 0.3, "epochs": 90, "batch_size": 256,
        "lr": 0.2, "schedule": "cosine", "l2": 2e-4, "reweight_epoch": 60,
        "rho": 0.05, "rho_steps": ["5:0.1", "60:0.5"],
    },
    "teacher_inat": {
        "model": "resnet50", "rho": 0.05, "rho_steps": ["5:0.1", "60:0.5"],
        "max_margin": 0.3, "epochs": 90, "batch_size": 256, "lr": 0.1, "l2": 1e-4,
    },
}  # fmt: skip

# Recipes that adapt a pre-trained ViT-B/16: training images, epochs, optimiser steps, millions of weights in the
# adapters, accuracies with one crop and with five. Source: LIFT, tables 1 to 4.
ADAPTED = {
    "adapt_cifar100_lt": (10847, 10, 840, 0.10, (80.3, 81.7)),
    "adapt_imagenet_lt": (115846, 10, 9050, 0.62, (77.0, 78.3)),
    "adapt_places_lt": (62500, 10, 4880, 0.18, (51.5, 52.2)),
    "adapt_inat18": (437513, 20, 68360, 4.75, (79.1, 80.4)),
}
LIFT = {
    "method": "adapt", "tune": "adaptformer", "adapter_rank": 0, "head_scale": 25, "head_init": "",
    "logit_adjustment": 1,
    "lr": 0.01, "lr_rule": "constant", "batch_size": 128, "weight_decay": 5e-4, "warmup_epochs": 0, "min_lr": 0,
    "clip_norm": 0, "crop": "resized", "crop_min_scale": 0.08, "flip": True, "randaugment": "", "erasing": 0,
    "mixup": 0, "cutmix": 0, "smoothing": 0, "repeats": 1, "sampling": "instance", "image_size": 224,
    "eval_resize": 256, "five_crops": 24, "reweight_epoch": -1, "drop_path": 0, "ema_decay": 0,
}  # fmt: skip

every_recipe = pytest.mark.parametrize("name", RECIPES)
every_paper_recipe = pytest.mark.parametrize("name", PAPER)


@functools.cache
def recipe_of(name: str, *arguments: str) -> Recipe:
    """The recipe's settings; what it starts from is a file that a test does not have."""
    return command_line.recipe_of(["test", f"--flagfile={RECIPES[name]}", "--init=", "--teacher_init=", *arguments])


def comments(name: str) -> str:
    """The lab note of a recipe, its lines joined."""
    lines = RECIPES[name].read_text().splitlines()
    return "\n".join(line.lstrip("# ") for line in lines if line.startswith("#"))


# ---- networks and views ----


@pytest.fixture(scope="module")
def shapes_only():
    """Networks without values, whose drawing takes seconds at the size of DeiT-B; equal ones are built once."""
    real = models.build

    @functools.cache
    def build(name, **arguments):
        with keras.StatelessScope(initialize_variables=False):
            return real(name, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "build", build)
        yield
    keras.utils.clear_session()  # forgets the variables that wait for values


def test_every_recipe_has_a_row_here():
    assert RECIPES.keys() == CLASSES.keys()
    assert PAPER.keys() | TEACHERS.keys() <= RECIPES.keys()


# These recipes have the students of others, or of the paper's: their networks are left to the slow suite.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow)
        if name.endswith(("_paco", "_pretrained")) or name.startswith("federated_")
        else name
        for name in RECIPES
        if not recipe_of(name).student.frozen and not name.startswith("adapt")
    ],
)
@pytest.mark.usefixtures("shapes_only")
def test_networks_build_for_the_classes_of_the_data(name):
    recipe, logits = recipe_of(name), (None, CLASSES[name])
    side, loss = recipe.student.view.image_size, recipe.teacher.objective.loss
    student = student_network(recipe, num_classes=CLASSES[name])
    assert student.input_shape == (None, side, side, 3)
    assert {head: output.shape for head, output in student.output.items()} == {"cls": logits, "dist": logits}
    if name in PAPER:
        assert student.count_params() == {10: 85815572, 100: 85953992, 1000: 87338192, 8142: 98322588}[CLASSES[name]]

    plain = student_network(recipe_of(name, "--method=vit"), num_classes=CLASSES[name])
    assert plain.output_shape == logits

    teacher, side = teacher_network(recipe, num_classes=CLASSES[name]), recipe.teacher.view.image_size
    assert teacher.input_shape == (None, side, side, 3)
    assert teacher.output_shape == logits
    head = teacher.get_layer("expert0.fc" if loss == "mdcs" else "fc")
    cosine = isinstance(head, resnet.CosineClassifier)
    assert cosine == (loss in ("ldam", "mdcs"))
    objective = make_objective(recipe.teacher, teacher, np.full(CLASSES[name], 9), steps_per_epoch=10)
    assert objective.views == (2 if loss in ("paco", "mdcs", "glmc") else 1)


@every_recipe
@pytest.mark.parametrize("network", ["student", "teacher"])
def test_views_of_a_photo_have_the_size_of_the_network(name, network):
    recipe = recipe_of(name)
    settings = getattr(recipe, network).view
    photo = tf.cast(tf.random.stateless_uniform([40, 56, 3], (0, 1), 0, 256, tf.int32), tf.uint8)
    if network == "teacher":
        view = training_view(recipe, views=1)
    else:
        view = augment.training_view(**settings.training(resize=recipe.data.resize))
    trained = view(photo, tf.constant([0, 1], tf.int64))
    tested = augment.evaluation_view(photo, size=settings.image_size, resize=settings.eval_resize)
    for one in (trained, tested):
        assert one.dtype == tf.uint8 and one.shape == (settings.image_size, settings.image_size, 3)


@pytest.mark.parametrize("name", ADAPTED)
@pytest.mark.usefixtures("shapes_only")
def test_adapted_networks_train_as_many_weights_as_published(name):
    recipe, classes = recipe_of(name, "--init=clip.safetensors"), CLASSES[name]  # a file that a test does not have
    options = adapting.options(recipe, num_classes=classes)
    network = models.build(recipe.student.model, num_classes=classes, image_size=224, **options)
    adapters.freeze(network, tune=recipe.student.adaptation.tune)
    assert network.output_shape == (None, classes)
    trained = {v.path: int(np.prod(v.shape)) for v in network.trainable_variables}
    assert trained.pop("head/weight") == 768 * classes
    assert round(sum(trained.values()) / 1e6, 2) == ADAPTED[name][3]


@pytest.mark.parametrize("name", ADAPTED)
def test_adapting_is_as_published(name):
    num_images, epochs, steps, _, accuracies = ADAPTED[name]
    recipe, note = recipe_of(name), comments(name)
    assert {key: value for key, value in recipe.flags.items() if key in LIFT} == LIFT
    assert recipe.student.schedule.epochs == epochs
    assert pipeline.steps_per_epoch(num_images, batch=128) * epochs == steps and f"{steps:,} steps of 128 views" in note
    assert f"LIFT, CLIP B/16 {accuracies[0]}" in re.sub(" +", " ", note)
    assert f"LIFT with five crops {accuracies[1]}" in re.sub(" +", " ", note)
    assert (
        recipe.student.network.mean == torch_weights.CLIP_MEAN and recipe.student.network.std == torch_weights.CLIP_STD
    )


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("adapt")])
def test_schedules_build_and_re_weighting_falls_into_them(name):
    recipe = recipe_of(name)
    student, teacher = recipe.student, recipe.teacher
    assert 0 < student.reweight_epoch < student.schedule.epochs or student.frozen
    late, epochs, peak = teacher.schedule.reweight_epoch, teacher.schedule.epochs, teacher.schedule.lr
    assert 0 < late < epochs or (late == -1 and teacher.objective.loss not in ("ce", "ldam"))
    assert student.batch.size % student.batch.accumulation == 0
    rates = [float(learning_rate(teacher, 10)(10 * epoch)) for epoch in range(epochs)]
    assert 0.9 * peak < max(rates) < 1.001 * peak
    assert min(rates[late:]) < max(rates) / 3


# ---- the paper's numbers ----


@every_paper_recipe
def test_the_students_of_the_paper_are_trained_as_there(name):
    num_images, gpus, epochs, late, peak, steps, accuracies = PAPER[name]
    recipe = recipe_of(name)
    student, batch = recipe.student, recipe.student.batch
    assert {key: value for key, value in recipe.flags.items() if key in SHARED} == SHARED
    assert (student.schedule.epochs, student.reweight_epoch) == (epochs, late)
    assert student.peak_lr == pytest.approx(peak) == pytest.approx(5e-4 * gpus * 128 / 512)
    assert batch.size == gpus * 128 * 4 == batch.accumulation * 128
    assert student.schedule.mixing_off == name.startswith("cifar")
    per_epoch = pipeline.steps_per_epoch(num_images, batch=batch.size, repeats=batch.repeats)
    assert per_epoch * epochs == steps

    note = comments(name)
    assert f"{num_images:,} " in note and f"{steps:,} steps of {batch.size} views" in note
    for row, value in zip(("ViT-B", "teacher (1)", "DeiT-LT (1)"), accuracies, strict=True):
        assert re.search(rf"^{re.escape(row)} +{value}\b", note, re.MULTILINE), f"{row} {value}"


@pytest.mark.parametrize("name", SECOND)
def test_the_second_kind_of_teacher_changes_nothing_else(name):
    first, second = recipe_of(name).flags, recipe_of(f"{name}_paco").flags
    changed = {key for key in first if first[key] != second[key]}
    assert {key for key in changed if not key.startswith("teacher_")} == {"workdir"}
    assert (second["teacher_loss"], second["teacher_epochs"], second["teacher_reweight_epoch"]) == ("paco", 400, -1)
    small = name.startswith("cifar")
    wanted = (0.05, 1024, 32, 0.05, 5e-4) if small else (0.2, 8192, 128, 0.02, 1e-4 if name == "inat18" else 5e-4)
    assert tuple(second[f"teacher_{key}"] for key in ("temperature", "queue", "dim", "lr", "l2")) == wanted
    for row, value in zip(("teacher (2)", "DeiT-LT (2)"), SECOND[name], strict=True):
        assert re.search(rf"^{re.escape(row)} +{value}\b", comments(f"{name}_paco"), re.MULTILINE)
    assert re.search(rf"^DeiT-LT \(2\) +{SECOND[name][1]}\b.*{name}_paco\.cfg", comments(name), re.MULTILINE)


@pytest.mark.parametrize("name", ["cifar10_lt", "cifar10_lt_r50", "cifar100_lt", "cifar100_lt_r50"])
def test_cifar_recipes_keep_the_official_number_of_images(name):
    data, classes = recipe_of(name).data, CLASSES[name]
    counts = long_tail_counts(
        np.full(classes, 50000 // classes), imbalance=data.imbalance, imbalance_type=data.imbalance_type
    )
    assert counts.sum() == PAPER[name][0] and data.imbalance_seed == 0
    assert f"{counts.max()} to {counts.min()} a class" in comments(name)


@pytest.mark.parametrize(
    ("name", "teacher"),
    [
        *((name, name) for name in TEACHERS),
        *((name, "teacher_cifar") for name in PAPER if name.startswith("cifar")),
        ("imagenet_lt", "teacher_imagenet"),
        ("places_lt", "teacher_imagenet"),
        ("inat18", "teacher_inat"),
    ],
)
def test_the_teachers_of_the_paper_are_trained_as_there(name, teacher):
    common = {"classifier": "cosine", "loss": "ldam", "scale": 30, "momentum": 0.9, "randaugment": "", "erasing": 0}
    expected = {f"teacher_{key}": value for key, value in (common | TEACHERS[teacher]).items()}
    assert {key: value for key, value in recipe_of(name).flags.items() if key in expected} == expected


def test_the_weights_of_places_lt_span_what_its_note_says():
    def span(beta):
        weights = losses.class_balanced_weights([4980, 5], beta)
        return round(float(weights[1] / weights[0]))

    recipe, note = recipe_of("places_lt"), comments("places_lt")
    beta = recipe.student.schedule.beta
    assert beta == recipe.teacher.schedule.beta == 0.999
    assert f"{beta:g} they span {span(beta)} to 1".lstrip("0") in note
    assert f"would span {span(0.9999)} to 1" in note


# ---- the notes ----


@every_recipe
def test_the_note_gives_a_command_that_runs_this_recipe(name):
    found = re.findall(rf"python -m deitlt_tf\.(\w+) (.*--flagfile=configs/{name}\.cfg.*)", comments(name))
    assert found, f"no command in the comments of {name}.cfg"
    for program, arguments in found:
        assert program in ("quick", "train", "train_teacher", "federate")
        recipe = command_line.recipe_of([program, *shlex.split(arguments.replace("configs/", f"{CONFIGS}/"))])
        data = recipe.data
        assert recipe.run.workdir, "the program would ask for --workdir"
        assert data.name not in ("folder", "list", "inat", "table") or data.data_dir, (
            "the program would ask for --data_dir"
        )


@every_recipe
def test_the_note_names_only_flags_that_exist(name):
    assert set(re.findall(r"--(\w+)", comments(name))) <= {*OURS, "flagfile"}


@every_recipe
def test_no_line_repeats_what_the_recipes_taken_in_say(name):
    path = RECIPES[name]
    own, inherited = {}, {}
    for line in path.read_text().splitlines():
        flag, _, value = line.partition("=")
        if flag == "--flagfile":
            inherited |= dict(line.partition("=")[::2] for line in command_line.read_flagfile(path.parent / value))
        elif flag.startswith("--"):
            assert flag not in own, f"{flag} stands there twice"
            own[flag] = value
    assert not own.items() & inherited.items()


def test_no_two_recipes_share_a_workdir():
    workdirs = [recipe_of(name).run.workdir for name in RECIPES if recipe_of(name).run.workdir]
    assert len(workdirs) == len(set(workdirs)) >= 8
