"""64-bit keys of images and groups, computed for whole blocks: the same on every machine and in every table."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

NEIGHBOURS = 3  # photos of one upload have ids that differ by at most this much: 48 % of a real sample do
CELL = 0.1  # degrees: the side of a place that is known by latitude and longitude alone
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


# ---- cells of a block ------------------------------------------------------------------------------------------------


def of_cells(cells: "pa.Array") -> np.ndarray:
    """int64 [N], a key of each cell, 0 of an empty one: `mixed` of whole numbers, `of_text` of everything else.

    A number has one key, whether its column holds whole numbers, fractions (as pandas writes it if a cell is empty) or
    text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _texts(cells)
    digits = pc.match_substring_regex(texts, r"^(0|[1-9][0-9]{0,16})(\.0+)?$")
    whole = pc.replace_substring_regex(pc.if_else(digits, texts, "0"), r"\..*", "")
    numbers = whole.cast(pa.int64()).to_numpy(zero_copy_only=False)
    keys = (mixed(numbers, seed=4) >> np.uint64(1)).astype(np.int64)
    return np.where(digits.to_numpy(zero_copy_only=False), keys, of_text(texts))


def _texts(cells: "pa.Array") -> "pa.Array":
    """The cells as text, "" of an empty one and of NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(cells.type):
        cells = pc.if_else(pc.is_nan(cells), None, cells)
    return cells.cast(pa.string()).fill_null("")


def image_keys(cells: "pa.Array") -> np.ndarray:
    """int64 [N], 0..LARGEST: a whole number from 0 up is its own key, a text a hash; -1 of an empty cell."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _texts(cells)
    keys = of_text(texts) & LARGEST
    digits = pc.match_substring_regex(texts, "^(0|[1-9][0-9]{0,16})$")
    numbers = pc.if_else(digits, texts, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    keys = np.where(digits.to_numpy(zero_copy_only=False), numbers, keys)
    keys[pc.equal(texts, "").to_numpy(zero_copy_only=False)] = -1
    return keys


def alone(ids: np.ndarray) -> np.ndarray:
    """int64 [N]: a key for each image as a group of its own."""
    return (mixed(ids, seed=3) >> np.uint64(1)).astype(np.int64)


def of_days(cells: "pa.Array") -> np.ndarray:
    """The key of the day, from dates, times, and texts that begin as 2024-01-31 does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(cells.type):
        cells = cells.cast(pa.date32(), safe=False)
    return of_cells(pc.utf8_slice_codeunits(cells.cast(pa.string()), 0, 10))


def of_places(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """int64 [N]: the key of a square of CELL degrees; 0 where a coordinate, float64 [N], is NaN."""
    rows, places = (np.floor(x / CELL) for x in (latitude, longitude))
    known = np.isfinite(rows) & np.isfinite(places)
    cells = np.where(known, rows, 0).astype(np.int64) * 10_000 + np.where(known, places, 0).astype(np.int64)
    return np.where(known, (mixed(cells, seed=5) >> np.uint64(1)).astype(np.int64), 0)
