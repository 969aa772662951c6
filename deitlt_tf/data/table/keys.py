"""64-bit keys of images and groups, computed for whole blocks: the same on every machine and in every table."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

NEIGHBOURS = 3  # photos of one upload have ids that differ by at most this much: 48 % of a real sample do
LARGEST = 2**60 - 1  # of a key of an image; the bits above hold its suffix, see `data.paths`
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def mixed(numbers: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """uint64 [N] that look random, another sequence for each seed: the last rounds of splitmix64.

    Source: Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators".
    """
    x = numbers.astype(np.uint64) + np.uint64(int(_FACTOR) * (seed + 1) % 2**64)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


def shares(numbers: np.ndarray, *, seed: int) -> np.ndarray:
    """float64 [N] from 0 to below 1, of `mixed`."""
    return (mixed(numbers, seed=seed) >> np.uint64(11)).astype(np.float64) / 2.0**53


def seed_of(text: str) -> int:
    """A seed of `mixed` from a text, such as the name of the split that is drawn."""
    import hashlib

    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


def of_text(texts: "pa.Array") -> np.ndarray:
    """int64 [N], 0..2^63-1: sum of byte_i r^i modulo 2^64, then `mixed`. The key of an empty cell is 0.

    Two of 10^8 texts have one key with a probability of about 0.05 %.
    """
    import pyarrow as pa

    texts = texts.cast(pa.large_string())
    count = len(texts)
    if not count:
        return np.zeros(0, np.int64)
    _, offset_buffer, data = texts.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[texts.offset : texts.offset + count + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    letters = np.frombuffer(data, np.uint8)[first:last] if last > first else np.zeros(0, np.uint8)
    offsets = offsets - first
    lengths = np.diff(offsets)
    powers = np.ones(int(lengths.max(initial=0)) + 1, np.uint64)
    powers[1:] = _FACTOR
    powers = np.multiply.accumulate(powers)
    places = np.arange(len(letters)) - np.repeat(offsets[:-1], lengths)
    terms = (letters.astype(np.uint64) + np.uint64(1)) * powers[places]
    sums = np.zeros(count, np.uint64)
    filled = lengths > 0
    if filled.any():
        sums[filled] = np.add.reduceat(terms, offsets[:-1][filled])
    keys = (mixed(sums) >> np.uint64(1)).astype(np.int64)
    keys[~filled] = 0
    return keys


def runs(ids: np.ndarray, within: np.ndarray | None = None) -> np.ndarray:
    """int64 [N], a key of the run of neighbouring ids that each id is in: its smallest id, mixed.

    ids: int64 [N], in any order; ids of a run, in order, differ by at most NEIGHBOURS.
    within: int [N]; if given, all members of a run have one value of it.
    """
    order = np.argsort(ids, kind="stable") if within is None else np.lexsort([ids, within])
    ranked = ids[order]
    starts = np.ones(len(ids), bool)
    starts[1:] = np.diff(ranked) > NEIGHBOURS
    if within is not None:
        starts[1:] |= np.diff(within[order]) != 0
    first = ranked[np.maximum.accumulate(np.where(starts, np.arange(len(ids)), 0))]
    keys = mixed(first, seed=1)
    if within is not None:  # runs of two values may begin with one id
        keys ^= mixed(within[order], seed=2)
    groups = np.empty(len(ids), np.int64)
    groups[order] = (keys >> np.uint64(1)).astype(np.int64)
    return groups
