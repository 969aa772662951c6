"""The student's settings: what the method, the learning rate rule and an earlier version make of them."""

import pytest
from helpers.recipes import recipe

from deitlt_tf.recipes.command_line import recipe_of


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


def test_the_moving_average_of_an_earlier_version_goes_on_without_a_warmup(tmp_path):
    path = tmp_path / "flags.cfg"
    path.write_text("--epochs=9\n")
    old = recipe_of(["train", f"--flagfile={path}"])
    assert not old.student.schedule.ema_warmup and recipe("--epochs=9").student.schedule.ema_warmup
    path.write_text("--epochs=9\n--ema_warmup=True\n")
    assert recipe_of(["train", f"--workdir={tmp_path}"], from_workdir=True).student.schedule.ema_warmup
    assert old.identity()["defaults"]["ema_warmup"] == "False"
