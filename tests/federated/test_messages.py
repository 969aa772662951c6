"""Arrays in messages keep their bits, and their sizes are checked before they are unpacked."""

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")

from flwr.app import Array, ArrayRecord

from deitlt_tf.federated import messages


def test_arrays_keep_their_bits():
    arrays = {"a": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32).T, "b": np.float32([np.pi, -0.0])}
    again = messages.arrays_of(messages.array_record(arrays), expected={"a": (2, 3), "b": (2,)}, sender="north")
    assert all(again[name].tobytes() == np.ascontiguousarray(array).tobytes() for name, array in arrays.items())


@pytest.mark.parametrize(
    "arrays", [{"a": np.float32([1, 2])}, {"b": np.float32([1])}, {"a": np.float64([1])}, {}, {"a": np.float32(1)}]
)
def test_other_names_shapes_and_types_are_refused(arrays):
    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    with pytest.raises(ValueError, match="north sends weights of another network"):
        messages.arrays_of(record, expected={"a": (1,)}, sender="north")


def test_more_bytes_than_the_shape_holds_are_refused_before_they_are_unpacked():
    large = Array(np.zeros(10_000, np.float32))
    large.shape = [1]
    with pytest.raises(ValueError, match="north sends 40128 bytes for a, more than its shape holds"):
        messages.arrays_of(ArrayRecord({"a": large}), expected={"a": (1,)}, sender="north")
