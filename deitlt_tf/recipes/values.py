"""From flags to fields: by name, and where a text holds several numbers."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any


def alike(settings: type[Any], flags: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{field: value of the flag --PREFIXfield} for the fields of a dataclass that have such a flag."""
    return {field.name: flags[prefix + field.name] for field in fields(settings) if prefix + field.name in flags}


def numbers(flags: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """The numbers of --name=1,2,3."""
    try:
        return tuple(finite(value) for value in flags[name])
    except ValueError:
        raise ValueError(f"--{name}={','.join(flags[name])} is not a list of numbers.") from None


def by_epoch(flags: Mapping[str, Any], name: str) -> dict[int, float]:
    """{epoch: number} of --name=epoch:number,epoch:number."""
    text = ",".join(flags[name])
    try:
        pairs = [(int(epoch), finite(number)) for epoch, number in (entry.split(":") for entry in flags[name])]
    except ValueError:
        raise ValueError(f"--{name}={text} is not of the form epoch:number,epoch:number.") from None
    by_epoch = dict(pairs)
    if len(by_epoch) < len(pairs) or any(epoch < 0 or number < 0 for epoch, number in pairs):
        raise ValueError(f"--{name}={text}: epochs and numbers have to be at least 0, and every epoch stands once.")
    return by_epoch


def finite(text: str) -> float:
    """The number. Raises ValueError if it is none, or not finite."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
