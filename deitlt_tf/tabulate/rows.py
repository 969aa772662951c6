"""The table that is written: its columns, and what happens to images with several species."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deitlt_tf.data.dataset import and_more
from deitlt_tf.data.table.columns import RANKS
from deitlt_tf.runs.files import replacing

if TYPE_CHECKING:
    import pyarrow as pa

# Columns in the order in which they are written; a column without any value is left out. See `data.table.columns`.
COLUMNS = (
    *("image_id", "path", "url", "label", *RANKS, "scientific_name", "common_name", "supercategory"),
    *("observation_id", "camera", "place", "latitude", "longitude", "observed_on", "country"),
    *("license", "rights_holder", "creator", "split"),
)
NUMBERS = ("latitude", "longitude")
BLOCK = 2**16  # rows that are in memory at a time

Row = Mapping[str, Any]


class Report:
    """What a source says while it is read: counted reasons why rows are left out, and images of several species.

    drop_several: whether those are left out and counted, or refused.
    """

    def __init__(self, *, drop_several: bool):
        self.drop_several = drop_several
        self.left_out: Counter[str] = Counter()

    def several(self, images: Sequence[tuple[str, str, str, str]]) -> None:
        """images: (file, image, one class, another class). Raises ValueError that names the first, unless they drop."""
        if images and not self.drop_several:
            file, image, one, other = images[0]
            raise ValueError(
                f"{file}: {image} has {one!r} and {other!r}, but an image has one class{and_more(images)}. "
                "--several=drop leaves such images out."
            )
        if images:
            self.left_out["with several species"] += len(images)

    def sentence(self) -> str:
        """What was left out; "" for nothing."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items() if count)


def write(path: Path, blocks: "Iterable[pa.Table]") -> tuple[int, int, list[str]]:
    """Write the table, which is whole or not there. Returns the numbers of rows and classes, and the columns.

    blocks: tables with some of COLUMNS, as text or numbers.
    Raises ValueError if there are no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.float64() if name in NUMBERS else pa.string()) for name in COLUMNS])
    filled: Counter[str] = Counter()
    classes: set[str] = set()
    count = 0
    with replacing(path) as temporary:
        whole = temporary.with_name(temporary.name + ".all")
        try:
            with pq.ParquetWriter(whole, schema) as writer:
                for block in blocks:
                    count += len(block)
                    columns = [
                        block[field.name].cast(field.type) if field.name in block.column_names else None
                        for field in schema
                    ]
                    for name, column in zip(COLUMNS, columns, strict=True):
                        filled[name] += 0 if column is None else len(block) - column.null_count
                    if "label" in block.column_names:
                        classes.update(block["label"].unique().to_pylist())
                    arrays = [
                        pa.nulls(len(block), f.type) if c is None else c for f, c in zip(schema, columns, strict=True)
                    ]
                    writer.write_table(pa.table(arrays, schema=schema))
            if not count:
                raise ValueError("there is no image with a class in the input.")
            names = [name for name in COLUMNS if filled[name]]
            with (
                pq.ParquetFile(whole) as source,
                pq.ParquetWriter(temporary, source.schema_arrow.empty_table().select(names).schema) as writer,
            ):
                for batch in source.iter_batches(BLOCK, columns=names):
                    writer.write_batch(batch)
        finally:
            whole.unlink(missing_ok=True)
    return count, len(classes), names


def blocks_of(rows: Iterable[Row]) -> "Iterator[pa.Table]":
    """Tables of BLOCK rows each."""
    import itertools

    import pyarrow as pa

    rows = iter(rows)
    while block := list(itertools.islice(rows, BLOCK)):
        columns = {
            name: [_number(row.get(name)) if name in NUMBERS else _text(row.get(name)) for row in block]
            for name in COLUMNS
        }
        types = {name: pa.float64() if name in NUMBERS else pa.string() for name in COLUMNS}
        yield pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _number(value: Any) -> float | None:
    try:
        return None if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return None


def ranks_of(names: Mapping[str, Any], *, name: str = "") -> dict[str, str | None]:
    """{rank: name} of a category or taxon that may name its ranks; a species gets both its words.

    name: its scientific name, which is that of its species if it has two words or more and a genus is known.
    """
    ranks = {rank: _text(names.get(rank)) for rank in RANKS}
    words = name.split()
    if ranks["species"] is None and ranks["genus"] and len(words) > 1 and words[0] == ranks["genus"]:
        ranks["species"] = name
    return ranks
