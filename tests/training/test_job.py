"""What the loop is given: every variable once, the batches of a recipe, a batch size that splits evenly."""

import keras
import numpy as np
import pytest
from helpers.programs import SMALL
from helpers.strategies import strategy_of

from deitlt_tf.data import augment, pipeline, sources
from deitlt_tf.recipes.command_line import recipe_of
from deitlt_tf.training.job import check_batch, total_variables, training_batches


def test_every_variable_is_there_once_and_in_order():
    a, b, c = (keras.Variable(np.float32(i)) for i in range(3))
    assert [id(v) for v in total_variables([b, a], [], [a, c, b])] == [id(b), id(a), id(c)]


@pytest.mark.parametrize("sampling", ["instance", "class_balanced"])
def test_batches_are_those_of_the_recipe_from_any_step_on(images, sampling):
    recipe = recipe_of(["test", *SMALL, "--repeats=2", "--seed=5", f"--sampling={sampling}", f"--data_dir={images}"])
    student, source = recipe.student, sources.load(recipe.data.name, **recipe.data.source()).train
    view = augment.training_view(**student.view.training(resize="fast"))
    batches = training_batches(recipe, source, view=view, batch=student.batch, steps=6, steps_per_epoch=3)
    expected = pipeline.train(
        source, view=view, batch=7, steps=6, steps_per_epoch=3, first_step=4, repeats=2, seed=5, sampling=sampling
    )
    found = [*batches(4).as_numpy_iterator()]
    assert len(found) == 2
    for (ours, labels), (theirs, their_labels) in zip(found, expected.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(labels, their_labels)


def test_a_batch_splits_over_devices_and_parts():
    check_batch(6, flag="batch_size")
    check_batch(6, parts=3, flag="batch_size")
    with pytest.raises(ValueError, match="batch_size=7 does not split evenly over 1 devices with 2 parts"):
        check_batch(7, parts=2, flag="batch_size")
    with strategy_of(2).scope():
        check_batch(12, parts=3, flag="batch_size")
        with pytest.raises(ValueError, match="teacher_batch_size=9 does not split evenly over 2 devices with 1 parts"):
            check_batch(9, flag="teacher_batch_size")
