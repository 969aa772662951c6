"""The teacher's settings: its loss decides its classifier."""

import pytest
from helpers.recipes import recipe

from deitlt_tf.recipes.checks import check
from deitlt_tf.recipes.teacher import CLASSIFIERS


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
