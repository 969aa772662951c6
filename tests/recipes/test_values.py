"""Flags become numbers in the units of the library, or are named."""

import pytest
from helpers.recipes import recipe


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
