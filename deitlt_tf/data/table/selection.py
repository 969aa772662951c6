"""Which rows of a table are used: conditions, ranks, doubles, images of a class. Integers only, a block at a time.

rows = select(open_files(files), rank="species", keep=..., ...)    what every row is, without a string for a row
for block in cells(files, rows, names): ...                        the cells of these rows, to fetch and to cite
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deitlt_tf.data.dataset import Complain, Note
from deitlt_tf.data.table import choices, columns, keys, names
from deitlt_tf.data.table.choices import Rows, indices_of, named
from deitlt_tf.data.table.conditions import Condition
from deitlt_tf.data.table.files import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT_BY = ("observation", "camera", "place", "day", "photo")


def select(
    files: Sequence[TableFile],
    *,
    rank: str = "species",
    keep: Condition | None = None,
    test_where: Condition | None = None,
    split_by: str = "observation",
    min_images: int = 1,
    max_images: int = 0,
    seed: int = 0,
    by_path: bool = False,
    complain: Complain,
    note: Note,
) -> Rows:
    """The rows that have a class, each image once.

    rank: one of `columns.RANKS`, or a column whose values are the classes. keep, test_where: see `conditions`.
    split_by: one of SPLIT_BY, what `Rows.groups` are; for photo they are the observations, to count what is shared.
    min_images: classes with fewer are left out. max_images: images that a class keeps, of as many groups as there are;
    0: all. seed: of that choice. by_path: whether images are told apart by their path, and not by their id.
    complain: called if an image has two classes; if it returns, both rows are left out.
    note: gets a sentence on whatever is left out, joined or stands in for something else.
    Raises ValueError that names file and column.
    """
    _require_columns(files, rank=rank, split_by=split_by)
    reader = _Reader(rank, split_by)
    blocks: list[tuple[np.ndarray, ...]] = []
    paths: list[pa.Array] = []
    start = 0
    for file in files:
        needed, where = reader.columns(file, test_where, by_path=by_path)
        compared = {*(keep.columns if keep else []), *(test_where.columns if test_where else [])}
        names_of_classes = {file.roles.get(rank, rank)} - compared
        for block in file.blocks(needed, keep=keep, text=[*names_of_classes]):
            found = reader.read(block, file, where, start=start, by_path=by_path)
            start += len(block)
            blocks.append(found[:-1])
            if by_path:
                paths.append(found[-1])
    if not start:
        raise ValueError(f"`keep` fits no row of {named(files)}." if keep else f"{named(files)} has no rows.")
    ids, index, taxa, groups, test = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    blocks.clear()
    if not reader.grouped:  # no such column, or an empty one
        groups[:] = 0
    rows = Rows(ids, index, taxa, groups, test, list(reader.lineages), _joined(paths) if by_path else None, keep)
    reader.tell(files, note=note)
    if not len(rows):
        raise ValueError(f"no row of {named(files)} has a {rank}: choose another `rank`.")
    rows = choices.each_once(rows, complain=complain, note=note)
    rows = choices.grouped(rows, files, split_by=split_by, drawn=test_where is None, note=note)
    rows = choices.without_small_classes(rows, min_images, rank=rank, note=note)
    return choices.at_most(rows, max_images, seed=seed, rank=rank, note=note) if max_images else rows


def _joined(arrays: "list[pa.Array]") -> "pa.Array":
    import pyarrow as pa

    return pa.concat_arrays(arrays)


def _require_columns(files: Sequence[TableFile], *, rank: str, split_by: str) -> None:
    """Raises ValueError that names file and column if a column that is needed is not there."""
    if split_by not in SPLIT_BY:
        raise ValueError(f"split_by={split_by} is unknown: choose one of {', '.join(SPLIT_BY)}.")
    for file in files:
        roles = file.roles
        if not {"id", "path", "url"} & roles.keys():
            known = ", ".join((*columns.NAMES["id"][:3], *columns.NAMES["path"][:2], columns.NAMES["url"][0]))
            names_there = ", ".join(file.schema.names[:20])
            raise ValueError(
                f"{file.path} has no column that tells which image a row is (such as {known}): it has {names_there}."
            )
        if rank == "species" and not {"species", "scientific_name"} & roles.keys():
            if not {"epithet", "genus"} <= roles.keys():
                file.require("species", argument="rank")
        elif rank in columns.RANKS and rank != "species":
            file.require(roles.get(rank, rank), argument="rank")
        elif rank not in columns.RANKS:
            file.require(rank, argument="rank")
        if split_by in ("camera", "place", "day") and split_by not in roles:
            if split_by == "place" and {"latitude", "longitude"} <= roles.keys():
                continue
            known = ", ".join(columns.NAMES[split_by])
            raise ValueError(f"{file.path} has no column for split_by={split_by}: such columns are {known}.")


@dataclass
class _Reader:
    """Turns blocks into integers.

    lineages: {lineage: its number}. left_out, said: rows by reason, see `names`. cache: {cells: (number, words said)}.
    grouped: rows that have a value in the column of groups.
    """

    rank: str
    split_by: str
    lineages: dict[names.Lineage, int] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    cache: dict[tuple[str | None, ...], tuple[int, str]] = field(default_factory=dict)
    grouped: int = 0

    def columns(self, file: TableFile, test_where: Condition | None, *, by_path: bool) -> tuple[list[str], Any]:
        """(columns of the file that are needed, `test_where` as an expression or None)."""
        role = self.group_role
        places = ("latitude", "longitude") if role == "place" and "place" not in file.roles else ()
        roles = (*self.naming(file), _id_role(file, by_path=by_path), role, *places, *(["path"] if by_path else []))
        needed = [file.roles.get(role, role) for role in roles if role in file.roles or role == self.rank]
        file.require_cells(needed)
        where = test_where.expression(file.schema, file=file.path) if test_where else None
        return [*dict.fromkeys([*needed, *(test_where.columns if test_where else [])])], where

    @property
    def group_role(self) -> str:
        """The role of the column that groups come from."""
        return "observation" if self.split_by == "photo" else self.split_by

    def naming(self, file: TableFile) -> list[str]:
        """The roles that a lineage is made of; the rank itself where it is another column."""
        if self.rank not in columns.RANKS:
            return [self.rank]
        return [role for role in (*columns.RANKS, "epithet", "scientific_name") if role in file.roles]

    def read(self, block: "pa.Table", file: TableFile, where: Any, *, start: int, by_path: bool) -> tuple:
        """(ids, index, taxa, groups, test, paths or None) of the rows of a block that have an id and a lineage."""
        id_cells = block[file.roles[_id_role(file, by_path=by_path)]].combine_chunks()
        ids = keys.image_keys(id_cells)
        taxa = self.taxa(block, file)
        good = (ids >= 0) & (taxa >= 0)
        self.left_out["id"] += int(((ids < 0) & (taxa >= 0)).sum())
        test = np.zeros(len(block), bool)
        if where is not None:
            numbered = block.append_column("\0row", [np.arange(len(block))])
            test[numbered.filter(where)["\0row"].to_numpy()] = True
        index = np.arange(start, start + len(block), dtype=np.int64)
        arrays = (ids, index, taxa, self.groups(block, file, ids), test)
        paths = None
        if by_path:
            import pyarrow as pa

            cells = block[file.roles["path"]].combine_chunks().cast(pa.large_string())
            paths = cells.filter(pa.array(good))
        return (*(array[good] for array in arrays), paths)

    def taxa(self, block: "pa.Table", file: TableFile) -> np.ndarray:
        """int32 [rows]: the number of each row's lineage, -1 where it has none, which is counted."""
        import pyarrow as pa

        roles = self.naming(file)
        cells = [block[file.roles.get(role, role)].combine_chunks().cast(pa.string()) for role in roles]
        codes = np.zeros(len(block), np.int64)
        for column in cells:
            encoded = column.dictionary_encode(null_encoding="encode")
            if len(codes) and int(codes.max()) >= 2**62 // max(1, len(encoded.dictionary)):
                codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
            codes = codes * len(encoded.dictionary) + encoded.indices.to_numpy(zero_copy_only=False)
        _, first, inverse, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
        distinct = zip(*(column.take(indices_of(first)).to_pylist() for column in cells), strict=True)
        numbers = [self.number(row, roles, count) for row, count in zip(distinct, counts.tolist(), strict=True)]
        return np.array(numbers, np.int32)[inverse] if numbers else np.zeros(0, np.int32)

    def number(self, cells: tuple[str | None, ...], roles: Sequence[str], count: int) -> int:
        """The number of a lineage; count: rows that have these cells."""
        if cells not in self.cache:
            said: Counter[str] = Counter()
            found = names.lineage(dict(zip(roles, cells, strict=True)), rank=self.rank, said=said)
            known = -1 if isinstance(found, str) else self.lineages.setdefault(found, len(self.lineages))
            self.cache[cells] = known, found if isinstance(found, str) else next(iter(said), "")
        number, word = self.cache[cells]
        (self.left_out if number < 0 else self.said)[word] += count
        return number

    def groups(self, block: "pa.Table", file: TableFile, ids: np.ndarray) -> np.ndarray:
        """int64 [rows]: the key of each row's group. A row that is in no group is a group of its own."""
        role = self.group_role
        if role in file.roles:
            cells = block[file.roles[role]].combine_chunks()
            groups = keys.of_days(cells) if role == "day" else keys.of_cells(cells)
        elif role == "place" and {"latitude", "longitude"} <= file.roles.keys():
            groups = keys.of_places(*(file.numbers(block, file.roles[name]) for name in ("latitude", "longitude")))
        else:
            return keys.alone(ids)  # other files may have groups
        self.grouped += int((groups != 0).sum())
        return np.where(groups == 0, keys.alone(ids), groups)

    def tell(self, files: Sequence[TableFile], *, note: Note) -> None:
        """A sentence on joined names, and one on rows that are left out."""
        if joined := self.said["joined"]:
            column = files[0].roles.get("species") or files[0].roles["epithet"]
            note(
                f"{named(files)}: column {column!r} has epithets, which are joined to "
                f"{files[0].roles['genus']!r} in {joined} rows, as in {self._example()!r}."
            )
        if rolled := self.said["rolled up"]:
            note(f"{named(files)}: {rolled} rows have a subspecies or an author's name, and count as their species.")
        reasons = {
            names.HYBRID: "of hybrids",
            names.WITHOUT: f"without a {self.rank}",
            "id": "without an image",
        }
        if left := [f"{self.left_out[key]} {words}" for key, words in reasons.items() if self.left_out[key]]:
            note(f"{named(files)}: rows are left out: {', '.join(left)}.")

    def _example(self) -> str | None:
        return next(lineage[-1] for lineage in self.lineages)


def _id_role(file: TableFile, *, by_path: bool) -> str:
    """The role of the column that tells images apart."""
    return "path" if by_path else "id" if "id" in file.roles else "url" if "url" in file.roles else "path"


def cells(files: Sequence[TableFile], rows: Rows, roles: Sequence[str]) -> "Iterator[tuple[np.ndarray, pa.Table]]":
    """(places in `rows`, their cells): the cells of the chosen rows, block by block, with columns named by their roles.

    rows: from `select`, of these files. A role that a file does not have gives empty cells.
    """
    import pyarrow as pa

    start, done = 0, 0
    for file in files:
        there = [role for role in roles if role in file.roles]
        file.require_cells([file.roles[role] for role in there])
        for block in file.blocks([file.roles[role] for role in there], keep=rows.keep):
            end = int(np.searchsorted(rows.index, start + len(block)))
            chosen = block.take(indices_of(rows.index[done:end] - start))
            empty = pa.nulls(end - done, pa.string())
            arrays = [
                chosen[file.roles[role]].cast(pa.string()) if role in there else pa.chunked_array([empty])
                for role in roles
            ]
            yield np.arange(done, end), pa.table(arrays, names=list(roles))
            start, done = start + len(block), end
