"""What goes between server and clients on Flower: names of records, and their conversion to arrays and numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

ARRAYS, METRICS, CONFIG = "arrays", "metrics", "config"
SIZE = "num-examples"  # the key of stock FedAvg for the weight of a client

Arrays = Mapping[str, np.ndarray]


def array_record(arrays: Arrays) -> ArrayRecord:
    """Named arrays for a message; they keep their bits."""
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def arrays_of(
    record: ArrayRecord, *, expected: Mapping[str, tuple] | None = None, sender: str
) -> dict[str, np.ndarray]:
    """The named arrays of a message.

    expected: {name: shape}, checked before anything is unpacked, so that a message does not decide how much memory is
      taken. sender: for the message of the ValueError that is raised where names, shapes or types differ.
    """
    if expected is not None:
        described = {name: tuple(array.shape) for name, array in record.items()}
        if described != dict(expected) or any(array.dtype != "float32" for array in record.values()):
            raise ValueError(f"{sender} sends weights of another network: give it the recipe of this run.")
        for name, array in record.items():
            if len(array.data) > 4 * int(np.prod(expected[name])) + 4096:
                raise ValueError(f"{sender} sends {len(array.data)} bytes for {name}, more than its shape holds.")
    return {name: array.numpy() for name, array in record.items()}


def content(
    config: Mapping[str, Any], *, arrays: Arrays | None = None, metrics: Mapping[str, Any] | None = None
) -> RecordDict:
    """The content of a message. config: text, numbers or lists of them."""
    records: dict[str, Any] = {CONFIG: ConfigRecord(dict(config))}
    if arrays is not None:
        records[ARRAYS] = array_record(arrays)
    if metrics is not None:
        records[METRICS] = MetricRecord(dict(metrics))
    return RecordDict(records)


def config_of(message: Message) -> dict[str, Any]:
    """The config of a message, {} where it has none."""
    return dict(message.content.config_records.get(CONFIG, {}))
