"""The table of flags: each is declared once, under one heading, and says what it is."""

import re

import pytest

from deitlt_tf.recipes.flags import COMMANDS_OWN, DEFAULTS, FIRST, FLAGS, FREE, GROUPS, OURS, RECIPE, TEACHER


def test_every_flag_stands_under_one_heading():
    assert [name for names in GROUPS.values() for name in names] == [*OURS] == [*RECIPE, *COMMANDS_OWN]
    assert len({*OURS}) == len(OURS)
    assert GROUPS["Single commands"] == COMMANDS_OWN
    assert DEFAULTS.keys() == {*RECIPE}


def test_the_flags_that_are_shown_first_are_twenty_of_a_recipe():
    assert len({*FIRST}) == len(FIRST) == 20 and {*FIRST} <= {*RECIPE}


def test_what_may_differ_decides_no_weights():
    assert {*FREE} <= {*OURS} and {*COMMANDS_OWN} <= FREE
    assert {"workdir", "data_dir", "checkpoint_seconds"} <= FREE
    assert not {"seed", "epochs", "data", "imbalance", "teacher", "model"} & FREE


def test_a_teacher_is_decided_by_its_own_flags_and_those_of_the_data():
    assert {*TEACHER} <= {*RECIPE} and len({*TEACHER}) == len(TEACHER)
    assert {*GROUPS["The data"]} <= {*TEACHER} and "max_megapixels" in TEACHER
    assert {name for name in RECIPE if name.startswith("teacher_")} - {*TEACHER} == {"teacher_sees"}
    assert not {"teacher", "workdir", "image_size", "epochs", "method"} & {*TEACHER}


@pytest.mark.parametrize("name", OURS)
def test_every_flag_says_what_it_is(name):
    text = re.sub(r"^<[^>]*>: ", "", FLAGS[name].help)  # absl puts an enum's values first
    assert text.endswith(".") and len(text.split()) > 2


@pytest.mark.parametrize("name", [name for name in OURS if f"teacher_{name}" in OURS])
def test_what_the_teacher_has_too_is_of_the_same_type(name):
    assert type(FLAGS[name].value) is type(FLAGS[f"teacher_{name}"].value)
