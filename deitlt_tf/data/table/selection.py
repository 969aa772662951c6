"""Which rows of a table are used: conditions, ranks, doubles, images of a class. Integers only, a block at a time.

rows = select(open_files(files), rank="species", keep=..., ...)    what every row is, without a string for a row
for block in cells(files, rows, names): ...                        the cells of these rows, to fetch and to cite
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deitlt_tf.data.dataset import Complain, Note, and_more
from deitlt_tf.data.table import columns, keys, names
from deitlt_tf.data.table.conditions import Condition
from deitlt_tf.data.table.files import TableFile

if TYPE_CHECKING:
    import pyarrow as pa

SPLIT_BY = ("observation", "camera", "place", "day", "photo")
CELL = 0.1  # degrees: the side of a place that is known by latitude and longitude alone
RUN_LENGTH = 10  # mean length of runs of ids, from which on the ids are a plain numbering
_SALT = 3  # of groups of rows without a value in the group's column: each is a group of its own


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, in its order.

    ids: int64 [N], 0..keys.LARGEST, one key for each image: its number, or a hash of its name.
    index: int64 [N], the row among those that fulfil `keep`. taxa: int32 [N], an index of `lineages`.
    groups: int64 [N], keys of observations, cameras, ...: images that one split should have together.
    test: bool [N], whether the row fulfils `test_where`. keep: the condition that the rows fulfil.
    lineages: of the taxa, from the root to the rank of the classes. paths: large_string [N], or None.
    """

    ids: np.ndarray
    index: np.ndarray
    taxa: np.ndarray
    groups: np.ndarray
    test: np.ndarray
    lineages: list[names.Lineage]
    paths: "pa.Array | None" = None
    keep: Condition | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, chosen: np.ndarray) -> "Rows":
        """The rows at these indices or where this mask is true, in their order."""
        if chosen.dtype == bool:
            if chosen.all():
                return self
            chosen = np.flatnonzero(chosen)
        arrays = {name: getattr(self, name)[chosen] for name in ("ids", "index", "taxa", "groups", "test")}
        return replace(self, **arrays, paths=None if self.paths is None else self.paths.take(_indices(chosen)))


def _indices(chosen: np.ndarray) -> "pa.Array":
    import pyarrow as pa

    return pa.array(chosen)


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
        for block in file.blocks(needed, keep=keep):
            found = reader.read(block, file, where, start=start, by_path=by_path)
            start += len(block)
            blocks.append(found[:-1])
            if by_path:
                paths.append(found[-1])
    if not start:
        raise ValueError(f"`keep` fits no row of {_named(files)}." if keep else f"{_named(files)} has no rows.")
    ids, index, taxa, groups, test = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    blocks.clear()
    if not reader.grouped:  # no such column, or an empty one
        groups[:] = 0
    rows = Rows(ids, index, taxa, groups, test, list(reader.lineages), _joined(paths) if by_path else None, keep)
    reader.tell(files, note=note)
    if not len(rows):
        raise ValueError(f"no row of {_named(files)} has a {rank}: choose another `rank`.")
    rows = _each_once(rows, complain=complain, note=note)
    rows = _grouped(rows, files, split_by=split_by, drawn=test_where is None, note=note)
    rows = without_small_classes(rows, min_images, rank=rank, note=note)
    return _at_most(rows, max_images, seed=seed, rank=rank, note=note) if max_images else rows


def _named(files: Sequence[TableFile]) -> str:
    return files[0].path + (f" and {len(files) - 1} more files" if len(files) > 1 else "")


def _joined(arrays: "list[pa.Array]") -> "pa.Array":
    import pyarrow as pa

    return pa.concat_arrays(arrays)


def _require_columns(files: Sequence[TableFile], *, rank: str, split_by: str) -> None:
    """Raises ValueError that names file and column if a column that is needed is not there."""
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
        ids = image_keys(id_cells)
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
        distinct = zip(*(column.take(_indices(first)).to_pylist() for column in cells), strict=True)
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
        """int64 [rows]: the key of each row's group; zeros where the file says nothing about groups."""
        role = self.group_role
        if role in file.roles:
            cells = block[file.roles[role]].combine_chunks()
            groups = _day(cells) if role == "day" else of_cells(cells)
        elif role == "place" and {"latitude", "longitude"} <= file.roles.keys():
            groups = _place(*(block[file.roles[name]] for name in ("latitude", "longitude")))
        else:
            return np.zeros(len(ids), np.int64)
        self.grouped += int((groups != 0).sum())
        return np.where(groups == 0, alone(ids), groups)

    def tell(self, files: Sequence[TableFile], *, note: Note) -> None:
        """A sentence on joined names, and one on rows that are left out."""
        if joined := self.said["joined"]:
            column = files[0].roles.get("species") or files[0].roles["epithet"]
            note(
                f"{_named(files)}: column {column!r} has epithets, which are joined to "
                f"{files[0].roles['genus']!r} in {joined} rows, as in {self._example()!r}."
            )
        if rolled := self.said["rolled up"]:
            note(f"{_named(files)}: {rolled} rows have a subspecies or an author's name, and count as their species.")
        reasons = {
            names.HYBRID: "of hybrids",
            names.WITHOUT: f"without a {self.rank}",
            "id": "without an image",
        }
        if left := [f"{self.left_out[key]} {words}" for key, words in reasons.items() if self.left_out[key]]:
            note(f"{_named(files)}: rows are left out: {', '.join(left)}.")

    def _example(self) -> str | None:
        return next(lineage[-1] for lineage in self.lineages)


# ---- cells of a block ------------------------------------------------------------------------------------------------


def _id_role(file: TableFile, *, by_path: bool) -> str:
    """The role of the column that tells images apart."""
    return "path" if by_path else "id" if "id" in file.roles else "url" if "url" in file.roles else "path"


def of_cells(cells: "pa.Array") -> np.ndarray:
    """int64 [N], a key of each cell, 0 of an empty one: `mixed` of whole numbers, `keys.of_text` of everything else."""
    import pyarrow as pa

    if pa.types.is_integer(cells.type):
        numbers = cells.fill_null(0).to_numpy(zero_copy_only=False)
        found = (keys.mixed(numbers, seed=4) >> np.uint64(1)).astype(np.int64)
        found[cells.is_null().to_numpy(zero_copy_only=False)] = 0
        return found
    return keys.of_text(cells.cast(pa.string()).fill_null(""))


def image_keys(cells: "pa.Array") -> np.ndarray:
    """int64 [N], 0..keys.LARGEST: a whole number from 0 up is its own key, a text a hash; -1 of an empty cell."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = cells.cast(pa.string()).fill_null("")
    found = keys.of_text(texts) & keys.LARGEST
    digits = pc.match_substring_regex(texts, "^(0|[1-9][0-9]{0,16})$")
    numbers = pc.if_else(digits, texts, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    found = np.where(digits.to_numpy(zero_copy_only=False), numbers, found)
    found[pc.equal(texts, "").to_numpy(zero_copy_only=False)] = -1
    return found


def alone(ids: np.ndarray) -> np.ndarray:
    """int64 [N]: a key for each image as a group of its own."""
    return (keys.mixed(ids, seed=_SALT) >> np.uint64(1)).astype(np.int64)


def _day(cells: "pa.Array") -> np.ndarray:
    """The key of the day, from dates, times, and texts that begin as 2024-01-31 does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(cells.type):
        cells = cells.cast(pa.date32(), safe=False)
    return of_cells(pc.utf8_slice_codeunits(cells.cast(pa.string()), 0, 10))


def _place(latitude: "pa.ChunkedArray", longitude: "pa.ChunkedArray") -> np.ndarray:
    """The key of a square of CELL degrees; 0 where a coordinate is missing."""
    import pyarrow as pa

    rows, places = (np.floor(x.cast(pa.float64()).to_numpy().astype(np.float64) / CELL) for x in (latitude, longitude))
    known = np.isfinite(rows) & np.isfinite(places)
    cells = np.where(known, rows, 0).astype(np.int64) * 10_000 + np.where(known, places, 0).astype(np.int64)
    return np.where(known, (keys.mixed(cells, seed=5) >> np.uint64(1)).astype(np.int64), 0)


# ---- choices ---------------------------------------------------------------------------------------------------------


def _each_once(rows: Rows, *, complain: Complain, note: Note) -> Rows:
    """Rows with each image once; `complain` is called for images of two classes, which then are left out."""
    order = np.argsort(rows.ids, kind="stable")
    ids, taxa = rows.ids[order], rows.taxa[order]
    again = np.concatenate([[False], ids[1:] == ids[:-1]])
    if not again.any():
        return rows
    differing = np.unique(ids[1:][again[1:] & (taxa[1:] != taxa[:-1])])
    if differing.size:
        twice = np.flatnonzero(rows.ids == differing[0])
        both = " and as ".join(repr(rows.lineages[rows.taxa[i]][-1]) for i in twice[:2])
        what = rows.paths[int(twice[0])].as_py() if rows.paths is not None else f"image {differing[0]}"
        complain(ValueError(f"the table has {what} as {both}: an image has one class{and_more(differing)}"))
    chosen = ~again
    chosen &= ~np.isin(ids, differing)
    # An image is held out for the test if one of its rows is.
    test = np.logical_or.reduceat(rows.test[order], np.flatnonzero(~again))
    held = np.zeros(len(rows), bool)
    held[order[~again]] = test
    if repeated := int(again.sum()):
        note(f"{repeated} rows repeat an image of another row, and each image counts once.")
    return replace(rows, test=held).at(np.sort(order[chosen]))


def _grouped(rows: Rows, files: Sequence[TableFile], *, split_by: str, drawn: bool, note: Note) -> Rows:
    """Rows with groups, also where no column has them: then runs of neighbouring ids stand in.

    drawn: whether the test set is drawn, and not what the user says.
    """
    if not rows.groups.any():
        rows = replace(rows, groups=_stand_in(rows))
        where = f"{_named(files)} has no column of observations"
        count = len(np.unique(rows.groups))
        if not drawn and count == len(rows):
            note(f"{where}: whether test images share one with training images is not known.")
        elif count == len(rows) and not _numbered(rows):
            note(
                f"{where}, and its ids are no numbers of uploads: images are split one by one. Photos of one animal "
                "then are in training and test, and accuracy is too high."
            )
        else:
            note(
                f"{where}: runs of ids that differ by at most {keys.NEIGHBOURS} stand in for them, "
                f"{count} runs of {len(rows)} images."
            )
    if split_by == "photo" and drawn:
        sizes = np.unique(rows.groups, return_counts=True)[1]
        shared = int(sizes[sizes > 1].sum())
        note(
            f"split_by=photo splits images one by one, and {shared} of {len(rows)} images have another one of their "
            "observation in the table: test images are like training images, and accuracy is too high."
        )
    return rows


def _numbered(rows: Rows) -> bool:
    """Whether ids are numbers of uploads, and not hashes of texts or a plain numbering of the rows."""
    if rows.paths is not None or rows.ids.max(initial=0) > 10**17:
        return False
    span = int(rows.ids.max()) - int(rows.ids.min()) + 1
    return len(rows) < 2 or span > len(rows) or len(np.unique(keys.runs(rows.ids, rows.taxa))) * RUN_LENGTH > len(rows)


def _stand_in(rows: Rows) -> np.ndarray:
    """Groups of images without a column of groups: runs of ids, or each image alone."""
    if not _numbered(rows):
        return alone(rows.ids)
    for within in (None, rows.taxa):  # of one class, where the ids are so dense that runs would hardly end
        groups = keys.runs(rows.ids, within)
        if len(np.unique(groups)) * RUN_LENGTH > len(rows):
            return groups
    return alone(rows.ids)


def without_small_classes(rows: Rows, min_images: int, *, rank: str, note: Note) -> Rows:
    """Rows of classes with at least `min_images`. Raises ValueError if no class is left."""
    counts = np.bincount(rows.taxa, minlength=len(rows.lineages))
    large = counts >= max(1, min_images)
    if not large.any():
        raise ValueError(f"min_images={min_images}: no {rank} has that many images, the most is {counts.max()}.")
    there = counts > 0
    if (dropped := there & ~large).any():
        note(
            f"{dropped.sum()} of {there.sum()} classes have fewer than {min_images} images and are left out, with "
            f"{counts[dropped].sum()} of {len(rows)} images (`min_images`)."
        )
    return rows.at(large[rows.taxa])


def _at_most(rows: Rows, max_images: int, *, seed: int, rank: str, note: Note) -> Rows:
    """Rows with at most `max_images` of a class: one of each group first, then a second one, drawn with the seed."""
    drawn = keys.mixed(rows.ids, seed=keys.seed_of(f"max_images {seed}"))
    order = np.lexsort([drawn, rows.groups, rows.taxa])
    taxa, groups = rows.taxa[order], rows.groups[order]
    new = np.concatenate([[True], (taxa[1:] != taxa[:-1]) | (groups[1:] != groups[:-1])])
    numbers = np.arange(len(rows))
    place = np.empty(len(rows), np.int64)  # of an image in its group and class
    place[order] = numbers - np.maximum.accumulate(np.where(new, numbers, 0))
    drawn_groups = keys.mixed(rows.groups, seed=keys.seed_of(f"max_images of groups {seed}"))
    order = np.lexsort([drawn, drawn_groups, place, rows.taxa])
    taxa = rows.taxa[order]
    new = np.concatenate([[True], taxa[1:] != taxa[:-1]])
    in_class = numbers - np.maximum.accumulate(np.where(new, numbers, 0))
    chosen = np.sort(order[in_class < max_images])
    if len(chosen) < len(rows):
        full = int((np.bincount(rows.taxa) > max_images).sum())
        note(f"{full} classes have more than {max_images} images and keep that many: {len(chosen)} of {len(rows)}.")
    return rows.at(chosen)


def cells(files: Sequence[TableFile], rows: Rows, roles: Sequence[str]) -> "Iterator[tuple[np.ndarray, pa.Table]]":
    """(places in `rows`, their cells): the cells of the chosen rows, block by block, with columns named by their roles.

    rows: from `select`, of these files. A role that a file does not have gives empty cells.
    """
    import pyarrow as pa

    start, done = 0, 0
    for file in files:
        there = [role for role in roles if role in file.roles]
        for block in file.blocks([file.roles[role] for role in there], keep=rows.keep):
            end = int(np.searchsorted(rows.index, start + len(block)))
            chosen = block.take(_indices(rows.index[done:end] - start))
            empty = pa.nulls(end - done, pa.string())
            arrays = [
                chosen[file.roles[role]].cast(pa.string()) if role in there else pa.chunked_array([empty])
                for role in roles
            ]
            yield np.arange(done, end), pa.table(arrays, names=list(roles))
            start, done = start + len(block), end
