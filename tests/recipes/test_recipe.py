"""Typed settings: every flag of a recipe lands in exactly one field, and what the fields say together."""

import dataclasses
import inspect

import pytest

from deitlt_tf import mixing
from deitlt_tf.data import augment, sources
from deitlt_tf.devices import strategy
from deitlt_tf.recipes.checks import check
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.recipes.flags import DEFAULTS, FLAGS, FREE, RECIPE, TEACHER
from deitlt_tf.recipes.recipe import CLASSIFIERS, as_text, read
from deitlt_tf.runs import data, folder

RESOLVED = DEFAULTS | {"teacher_classifier": "cosine"}  # auto follows --teacher_loss


def recipe(*arguments: str):
    return recipe_of(["test", *arguments])


def leaves(settings, path: str = "") -> dict:
    """{path: value} of every field of nested dataclasses that is none itself."""
    if not dataclasses.is_dataclass(settings):
        return {path: settings}
    found = {}
    for field in dataclasses.fields(settings):
        if path or field.name not in ("flags", "explicit_flags", "lengths"):
            found |= leaves(getattr(settings, field.name), f"{path}.{field.name}".lstrip("."))
    return found


def another_value(name: str):
    """A valid value of a flag that is not its default."""
    flag, default = FLAGS[name], DEFAULTS[name]
    kind = flag.flag_type()
    if isinstance(default, list):
        return ["3:0.5"] if name.endswith(("drops", "rho_steps")) else ["0.1", "0.2", "0.3"]
    if kind == "bool":
        return not default
    if getattr(flag.parser, "enum_values", None):
        return next(value for value in flag.parser.enum_values if value != default)
    if kind in ("int", "float"):
        candidates = (default + 1, default / 2 or 0.5) if kind == "float" else (default + 1,)
        return next(value for value in candidates if not flag.parser.is_outside_bounds(value))
    return f"{default}x"


def test_the_settings_cannot_be_changed_in_place():
    settings = recipe()
    federated = settings.federated
    for part in (settings, settings.data, settings.student.view, settings.teacher.objective, federated, settings.run):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, dataclasses.fields(part)[0].name, 0)


@pytest.mark.parametrize("name", RECIPE)
def test_every_flag_lands_in_exactly_one_field(name):
    before = leaves(read(RESOLVED))
    after = leaves(read(RESOLVED | {name: another_value(name)}))
    assert after.keys() == before.keys()
    assert len([path for path in before if before[path] != after[path]]) == 1


def test_every_field_comes_from_a_flag():
    before = leaves(read(RESOLVED))
    reached = set()
    for name in RECIPE:
        after = leaves(read(RESOLVED | {name: another_value(name)}))
        reached |= {path for path in before if before[path] != after[path]}
    # A teacher's batch is neither accumulated nor repeated.
    assert before.keys() - reached == {"teacher.batch.accumulation", "teacher.batch.repeats"}


def test_settings_are_the_keywords_of_the_functions_that_take_them():
    settings = recipe()
    for function, keywords in [
        (sources.load, settings.data.source() | {"name": ""}),
        (data.load_splits, settings.data.loading() | {"folder": ""}),
        (augment.training_view, settings.student.view.training(resize="fast")),
        (augment.with_second_view, settings.teacher.view.training(resize="fast") | {"second": {}}),
        (strategy.running, settings.run.devices()),
        (strategy.prepare, settings.run.numerics()),
        (folder.claim, settings.identity() | {"folder": "", "class_names": ()}),
        (folder.refuse_other, settings.teacher_identity() | {"folder": ""}),
        (data.identity, settings.data.loading() | {"splits": ""}),
    ]:
        inspect.signature(function).bind(**keywords)
    second = settings.teacher.second_view.settings()
    inspect.signature(augment.training_view).bind(**settings.teacher.view.training(resize="fast") | second)
    assert settings.student.mixing.keywords().keys() <= inspect.signature(mixing.mix).parameters.keys()


def test_other_flags_make_another_recipe():
    settings = recipe("--epochs=3")
    other = settings.changed(epochs=4, workdir="x")
    assert (other.student.schedule.epochs, other.run.workdir, other.explicit_flags) == (4, "x", {"epochs", "workdir"})
    assert (settings.student.schedule.epochs, settings.explicit_flags) == (3, {"epochs"})
    assert settings.changed(epochs=3) == settings


@pytest.mark.parametrize(
    ("arguments", "peak"),
    [
        (["--lr_rule=linear"], 4e-4 * 1024 / 512),
        (["--lr_rule=official"], 4e-4 * 1024 / 4 / 512),
        (["--lr_rule=constant"], 4e-4),
    ],
)
def test_the_peak_learning_rate_follows_its_rule(arguments, peak):
    student = recipe("--lr=4e-4", "--batch_size=1024", "--accumulation=4", *arguments).student
    assert student.peak_lr == pytest.approx(peak)


@pytest.mark.parametrize(
    ("method", "plain", "late", "model"),
    [
        ("deit_lt", False, 7, "deit_tiny"),
        ("deit", False, -1, "deit_tiny"),
        ("vit", True, -1, "vit_tiny"),
        ("vit_drw", True, 7, "vit_tiny"),
        ("adapt", True, -1, "efficientnet_lite0"),  # without --init it takes a backbone by name
    ],
)
def test_the_method_decides_network_and_re_weighting(method, plain, late, model):
    student = recipe(f"--method={method}", "--reweight_epoch=7", "--model=deit_tiny").student
    assert (student.plain, student.reweight_epoch, student.model) == (plain, late, model)


def test_units_are_those_of_the_library():
    settings = recipe("--max_megapixels=0.01", "--decoded_mb=2.5", "--teacher_drops=3:0.1,5:0.01", "--mean=.1,.2,.3")
    assert settings.data.max_pixels == 10_000 and settings.data.decoded_bytes == 2.5e6
    assert settings.teacher.schedule.drops == {3: 0.1, 5: 0.01}
    assert settings.student.network.mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mean=a,b,c"], "--mean=a,b,c is not a list of numbers"),
        (["--teacher_rho_steps=5:0.1,60"], r"--teacher_rho_steps=5:0\.1,60 is not of the form epoch:number"),
        (["--teacher_drops=x:1"], "--teacher_drops=x:1 is not of the form epoch:number"),
        (["--mean=nan,1,1"], "--mean=nan,1,1 is not a list of numbers"),
        (["--teacher_drops=3:inf"], "--teacher_drops=3:inf is not of the form epoch:number"),
        (["--teacher_drops=3:.1,3:.2"], "every epoch stands once"),
        (["--teacher_rho_steps=-3:.1"], "--teacher_rho_steps=-3:.1: epochs and numbers have to be at least 0"),
        (["--teacher_sees=clean", "--distillation=soft"], "it needs --distillation=hard"),
    ],
)
def test_values_that_no_run_could_use_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        recipe(*arguments)


def test_the_lengths_of_a_schedule_are_those_that_were_set_one_after_the_other():
    settings = recipe("--flagfile=teacher_cifar_mdcs.cfg", "--teacher_epochs=100", "--epochs=7")
    assert settings.lengths == {"epochs": (1200, 7), "teacher_epochs": (200, 200, 400, 100)}
    assert settings.changed(seed=3).lengths == settings.lengths


@pytest.mark.parametrize(
    ("arguments", "trains"),
    [([], True), (["--method=vit"], False), (["--teacher=x"], False), (["--method=deit"], True)],
)
def test_a_teacher_is_trained_unless_there_is_one_or_none_is_needed(arguments, trains):
    assert recipe(*arguments).trains_teacher == trains


def test_identities_are_text_and_the_teachers_is_a_part():
    settings = recipe("--epochs=3", "--teacher_drops=3:0.1,5:0.01")
    whole, teacher = settings.identity(), settings.teacher_identity()
    assert whole["flags"].keys() == {*RECIPE} and teacher["flags"].keys() == {*TEACHER}
    assert teacher["flags"].items() <= whole["flags"].items()
    assert whole["flags"]["epochs"] == "3" and whole["flags"]["teacher_drops"] == "3:0.1,5:0.01"
    assert whole["defaults"]["epochs"] == "1200" and whole["free"] == FREE
    assert as_text({"mean": ["1", "2"], "flip": True, "lr": 1e-4, "init": ""}) == {
        "mean": "1,2", "flip": "True", "lr": "0.0001", "init": "",
    }  # fmt: skip


@pytest.mark.parametrize("loss", CLASSIFIERS)
def test_the_classifier_is_what_the_loss_needs_and_flags_say_which(loss):
    settings = recipe(f"--teacher_loss={loss}")
    needed = "cosine" if loss in ("ldam", "mdcs") else "linear"
    assert settings.teacher.network.classifier == settings.flags["teacher_classifier"] == needed
    assert settings.teacher_identity()["flags"]["teacher_classifier"] == needed
    for classifier in ("linear", "cosine"):
        settings = recipe(f"--teacher_loss={loss}", f"--teacher_classifier={classifier}")
        assert settings.flags["teacher_classifier"] == settings.teacher.network.classifier == classifier


@pytest.mark.parametrize(("loss", "classifier"), [("ldam", "linear"), ("glmc", "cosine")])
def test_a_classifier_that_a_loss_cannot_train_is_refused(loss, classifier):
    flags = [f"--teacher_loss={loss}", "--teacher_reweight_epoch=-1"]
    settings = recipe(*flags, f"--teacher_classifier={classifier}")
    with pytest.raises(ValueError, match=f"--teacher_loss={loss} cannot train --teacher_classifier={classifier}: set"):
        check(settings)
    check(recipe(*flags))
    check(recipe(*flags, f"--teacher_classifier={classifier}", "--method=vit"))  # no teacher is trained


def test_the_moving_average_of_an_earlier_version_goes_on_without_a_warmup(tmp_path):
    path = tmp_path / "flags.cfg"
    path.write_text("--epochs=9\n")
    old = recipe_of(["train", f"--flagfile={path}"])
    assert not old.student.schedule.ema_warmup and recipe("--epochs=9").student.schedule.ema_warmup
    path.write_text("--epochs=9\n--ema_warmup=True\n")
    assert recipe_of(["train", f"--workdir={tmp_path}"], from_workdir=True).student.schedule.ema_warmup
    assert old.identity()["defaults"]["ema_warmup"] == "False"
