"""The files of a table: which they are, their columns, and their rows in blocks. A mistake in one is one sentence."""

import csv
import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deitlt_tf.data.table import columns
from deitlt_tf.data.table.conditions import Condition

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET = (".parquet", ".pq")
TEXT = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
BLOCK_ROWS = 2**18  # rows of a Parquet file that are in memory at a time
BLOCK_BYTES = 2**24  # bytes of a CSV file that are read at a time
HEADER_BYTES = 2**16  # of the first line of a CSV file
_DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}


@dataclass(frozen=True)
class TableFile:
    """A file of a table.

    path: of the file. schema: names and types of its columns. roles: {role: column}, see `columns.recognise`.
    delimiter: between the columns of a text file; "" for Parquet. quoted: whether its values may stand in quotes.
    text: columns of a text file that are read as text, whatever they look like.
    """

    path: str
    schema: "pa.Schema"
    roles: dict[str, str]
    delimiter: str = ""
    quoted: bool = True
    text: tuple[str, ...] = ()

    def require(self, name: str, *, argument: str) -> None:
        """Raises ValueError that names file and column if there is no column `name`, which `argument` asks for."""
        if name not in self.schema.names:
            near = columns.near(name, self.schema.names)
            raise ValueError(f"{self.path} has no column {name!r}, which `{argument}` names: {near}")

    def require_cells(self, names: Sequence[str]) -> None:
        """Raises ValueError that names file and column if a column has lists or structures instead of texts."""
        import pyarrow as pa

        for name in names:
            kind = self.schema.field(name).type
            try:
                pa.array([], kind).cast(pa.string())
            except pa.ArrowException:
                raise ValueError(
                    f"{self.path}: column {name!r} is of type {kind}, and needs one text or number in each row."
                ) from None

    def numbers(self, block: "pa.Table", name: str) -> np.ndarray:
        """float64 [rows]: a column of a block, NaN for an empty cell. Raises ValueError for what is no number."""
        import pyarrow as pa

        try:
            return block[name].cast(pa.float64()).to_numpy().astype(np.float64)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{self.path}: column {name!r} needs numbers ({error}).") from None

    def blocks(
        self, names: Sequence[str], *, keep: Condition | None = None, text: Sequence[str] = ()
    ) -> "Iterator[pa.Table]":
        """The rows that fulfil `keep`, in their order, some 100,000 at a time, with these columns.

        text: further columns that are read as text, if the file is one; none that `keep` compares.
        Raises ValueError that names the file, and column and row where they are known, for a damaged file.
        """
        where = keep.expression(self.schema, file=self.path) if keep else None
        needed = list(dict.fromkeys([*names, *(keep.columns if keep else [])]))
        for block in self._all_blocks(needed, where=where, text=(*self.text, *text)):
            yield block.select(list(dict.fromkeys(names)))

    def _all_blocks(self, needed: list[str], *, where: Any, text: Sequence[str]) -> "Iterator[pa.Table]":
        import pyarrow as pa

        if not self.delimiter:
            import pyarrow.dataset as ds

            try:
                scanner = ds.dataset(self.path, format="parquet").scanner(
                    columns=needed, filter=where, batch_size=BLOCK_ROWS, batch_readahead=1, fragment_readahead=1
                )
                for batch in scanner.to_batches():
                    yield pa.Table.from_batches([batch])
            except (pa.ArrowException, OSError) as error:
                raise _damaged(self.path, error) from error
            return
        try:
            for batch in _open_text(self.path, self.delimiter, quoted=self.quoted, include=needed, text=text):
                table = pa.Table.from_batches([batch])
                self._require_lines(table)
                yield table if where is None else table.filter(where)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error

    def _require_lines(self, table: "pa.Table") -> None:
        """Raises ValueError for a line break in a text, which a quote that is not closed leaves."""
        import pyarrow as pa
        import pyarrow.compute as pc

        for name, column in zip(table.column_names, table.columns, strict=True):
            broken = pc.match_substring(column, "\n") if self.quoted and pa.types.is_string(column.type) else None
            if broken is not None and pc.any(broken).as_py():
                text = column.filter(broken)[0].as_py()
                raise ValueError(
                    f"{self.path}: column {name!r} has a text of several lines, {text[:80]!r}: its quote may not be "
                    "closed, or a quote inside may not be doubled."
                )


def paths_of(files: Sequence[str]) -> list[str]:
    """The files that these names mean: files, patterns such as part_*.parquet, and folders with all their tables.

    Raises FileNotFoundError or ValueError that names what is not there or no table.
    """
    paths: list[str] = []
    for name in files:
        name = os.path.expanduser(name)
        if os.path.isdir(name):
            inside = sorted(x for x in glob.glob(os.path.join(glob.escape(name), "*")) if _is_table(x))
            if not inside:
                raise FileNotFoundError(f"table={name}: the folder has no file {', '.join(('*.parquet', *TEXT[:2]))}.")
        else:
            inside = [name] if os.path.isfile(name) else sorted(glob.glob(name))
            if not inside:
                raise FileNotFoundError(f"table={name}: there is no such file.")
            for path in inside:
                if not _is_table(path):
                    raise ValueError(f"table={path}: a table is a file {', '.join((*PARQUET, *TEXT))}.")
        paths += [path for path in inside if path not in paths]
    return paths


def _is_table(path: str) -> bool:
    return path.lower().endswith((*PARQUET, *TEXT)) and os.path.isfile(path)


def open_files(files: Sequence[str]) -> list[TableFile]:
    """The files of a table, opened: the columns that have a role are the same in all. Arguments: as of `paths_of`.

    Raises ValueError that names file and column, or what is wrong with a file.
    """
    opened = [open_one(path) for path in paths_of(files)]
    first = opened[0]
    for other in opened[1:]:
        for role, name in first.roles.items():
            if role not in other.roles:
                raise ValueError(f"{other.path} has no column {name!r}, which {first.path} has.")
    return opened


def open_one(path: str) -> TableFile:
    """One file of a table. Raises ValueError that says what is wrong with it."""
    import pyarrow as pa

    if path.lower().endswith(PARQUET):
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
        _require_names(path, schema.names)
        return TableFile(path, schema, columns.recognise(schema.names))
    names, delimiter = _header(path)
    # GBIF and iNaturalist write tab-separated files without quotes, so that a quote there is a letter.
    quoted = delimiter != "\t" or names != _header(path, unquote=False)[0]
    roles = columns.recognise(names)
    try:
        schema = _open_text(path, delimiter, quoted=quoted).schema
        fractions = [roles[role] for role in columns.NO_FRACTIONS if role in roles]
        text = tuple(name for name in fractions if pa.types.is_floating(schema.field(name).type))
        if text:
            schema = _open_text(path, delimiter, quoted=quoted, text=text).schema
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return TableFile(path, schema, roles, delimiter, quoted, text)


def _header(path: str, *, unquote: bool = True) -> tuple[list[str], str]:
    """(names of the columns, delimiter) of a text file, from its first line. unquote: whether to drop quotes."""
    import pyarrow as pa

    with pa.input_stream(path, compression="detect") as stream:
        try:
            line = re.split(b"[\r\n]", stream.read(HEADER_BYTES), maxsplit=1)[0].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text: {error.reason} in its first line.") from None
        except OSError as error:
            raise _damaged(path, error) from error
    if not line.strip():
        raise ValueError(f"{path} is empty: its first line should name the columns.")
    delimiter = max(_DELIMITERS, key=line.count)
    if delimiter not in line:
        delimiter = ","
    names = next(csv.reader([line], delimiter=delimiter)) if unquote else line.split(delimiter)
    _require_names(path, names)
    if len(names) == 1 and not columns.recognise(names):
        wanted = "commas or tabs"
        raise ValueError(f"{path} has one column, {names[0]!r}: columns are separated by {wanted}, named in line 1.")
    return names, delimiter


def _require_names(path: str, names: Sequence[str]) -> None:
    """Raises ValueError for two columns of one name."""
    if again := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} has two columns {again[0]!r}: each column needs a name of its own.")


def _open_text(
    path: str, delimiter: str, *, quoted: bool, include: list[str] | None = None, text: Sequence[str] = ()
) -> Any:
    """A reader of the rows of a text file, in blocks. Types come from the first block, but for those of `text`."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names, _ = _header(path)
    roles = columns.recognise(names)
    texts = [*(roles[role] for role in columns.TEXT if role in roles), *text]
    return arrow_csv.open_csv(
        pa.input_stream(path, compression="detect"),
        read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, quote_char='"' if quoted else False),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(texts, pa.string()),
            include_columns=include,
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=["", "NULL", "null", "nan", "NaN", r"\N"],
        ),
    )


def _damaged(path: str, error: Exception) -> ValueError:
    """One sentence for what pyarrow says of a file."""
    message = " ".join(str(error).split())
    if path.lower().endswith(PARQUET):
        return ValueError(
            f"{path} is not a whole Parquet file: it may be cut off or damaged, fetch or write it again "
            f"({message.partition(' Is this a')[0][:200]})."
        )
    if match := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", message):
        row, wanted, there, text = match.groups()
        return ValueError(
            f"{path}:{row}: the row has {there} columns, the first line {wanted}: {text[:80]!r}; a value with "
            "the separator, a quote or a line break in it stands in quotes, and quotes inside are doubled."
        )
    if match := re.search(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to (\w+).*?'(.*)'", message):
        number, row_number, kind, value = match.groups()
        names, _ = _header(path)
        name = names[int(number)] if int(number) < len(names) else number
        place = f"{path}:{row_number}" if row_number else path
        return ValueError(f"{place}: column {name!r} has {value[:80]!r}, and its first rows are of type {kind}.")
    if match := re.search(r"In CSV column #(\d+): Row #(\d+): .*invalid UTF8", message):
        return ValueError(f"{path}:{match[2]} is not UTF-8 text: save the file again with the encoding UTF-8.")
    if "straddling object" in message:
        return ValueError(f"{path} has a row of more than {BLOCK_BYTES // 2**20} MB: a quote may not be closed.")
    return ValueError(f"{path} cannot be read as a table: {message[:300]}")
