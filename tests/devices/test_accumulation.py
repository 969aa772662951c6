"""A batch in equal parts, one after the other: joined again, or added up."""

import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf.devices.accumulation import in_parts

DATA = {"x": tf.reshape(tf.range(12.0), [6, 2]), "y": (tf.range(6),)}


def part(k, data):
    """The part's number next to each of its rows."""
    return {"number": tf.fill(tf.shape(data["y"][0]), k), "double": 2 * data["x"]}


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("unrolled", [False, True])
def test_parts_are_joined_in_the_order_of_the_batch(parts, traced, unrolled):
    run = lambda: in_parts(parts, part, DATA, unrolled=unrolled)  # noqa: E731
    joined = tf.function(run)() if traced else run()
    np.testing.assert_array_equal(joined["double"], 2 * DATA["x"])
    np.testing.assert_array_equal(joined["number"], np.repeat(np.arange(parts), 6 // parts))


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("unrolled", [False, True])
def test_parts_are_added_up(parts, traced, unrolled):
    def sums(k, data):
        return [tf.reduce_sum(data["x"], 0)], tf.reduce_max(data["y"][0])

    run = lambda: in_parts(parts, sums, DATA, add_up=True, unrolled=unrolled)  # noqa: E731
    (total,), last = tf.function(run)() if traced else run()
    np.testing.assert_array_equal(total, tf.reduce_sum(DATA["x"], 0))
    assert int(last) == sum(range(6 // parts - 1, 6, 6 // parts))


def test_a_batch_that_does_not_split_is_refused():
    with pytest.raises(ValueError, match=r"a batch of 6 images does not split into 4 equal parts.*drop_remainder"):
        in_parts(4, part, DATA)


def test_an_unrolled_batch_has_a_known_size():
    with pytest.raises(ValueError, match="BatchNorm over several devices needs batches of a known size"):
        of_any_size(lambda data: in_parts(2, part, data, unrolled=True))(DATA)


def of_any_size(function):
    """`function` traced for DATA with a first axis that is known only in the run."""
    signature = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), DATA)
    return tf.function(function, input_signature=[signature])


@pytest.mark.parametrize(
    ("parts", "numbers"),
    [(2, [0, 0, 0, 1, 1, 1]), (4, [0, 1, 1, 2, 3, 3]), (5, [0, 1, 2, 3, 4, 4]), (8, [0, 1, 2, 3, 4, 5])],
)
def test_a_batch_of_unknown_size_is_split_as_evenly_as_it_goes(parts, numbers):
    joined = of_any_size(lambda data: in_parts(parts, part, data))(DATA)
    np.testing.assert_array_equal(joined["double"], 2 * DATA["x"])
    np.testing.assert_array_equal(joined["number"], numbers)
    total = of_any_size(lambda data: in_parts(parts, lambda k, x: tf.reduce_sum(x["x"], 0), data, add_up=True))(DATA)
    np.testing.assert_array_equal(total, tf.reduce_sum(DATA["x"], 0))
