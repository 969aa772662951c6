"""Typed settings: every flag of a recipe lands in exactly one field, and what the fields say together."""

import dataclasses
import inspect

import pytest
from helpers.recipes import recipe

from deitlt_tf import mixing
from deitlt_tf.data import augment, sources
from deitlt_tf.devices import strategy
from deitlt_tf.recipes.flags import DEFAULTS, FLAGS, FREE, RECIPE, TEACHER
from deitlt_tf.recipes.recipe import as_text, read
from deitlt_tf.runs import data, folder

RESOLVED = DEFAULTS | {"teacher_classifier": "cosine"}  # auto follows --teacher_loss


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
    # These hand on what they do not know themselves.
    for function, further, keywords in [
        (data.load_splits, sources.load, settings.data.loading()),
        (augment.with_second_view, augment.training_view, settings.teacher.view.training(resize="fast")),
    ]:
        known = {**inspect.signature(function).parameters, **inspect.signature(further).parameters}
        assert keywords.keys() <= known.keys()
    second = settings.teacher.second_view.settings()
    inspect.signature(augment.training_view).bind(**settings.teacher.view.training(resize="fast") | second)
    assert settings.student.mixing.keywords().keys() <= inspect.signature(mixing.mix).parameters.keys()


def test_other_flags_make_another_recipe():
    settings = recipe("--epochs=3")
    other = settings.changed(epochs=4, workdir="x")
    assert (other.student.schedule.epochs, other.run.workdir, other.explicit_flags) == (4, "x", {"epochs", "workdir"})
    assert (settings.student.schedule.epochs, settings.explicit_flags) == (3, {"epochs"})
    assert settings.changed(epochs=3) == settings


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
