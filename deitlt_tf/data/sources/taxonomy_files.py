"""A taxonomy in a CSV or TSV file, for data that do not bring one: folders, lists, TFDS sets.

Two layouts, told apart by the first line:

    species,genus,family              a row for each class: its name, then its nodes from the finest rank upwards
    Passer domesticus,Passer,Passeridae

    name,parent,rank                  a row for each node of the tree; the topmost nodes have no parent
    Passer domesticus,Passer,species
    Passer,Passeridae,genus
    Passeridae,,family

Rows may come in any order, since classes are found by name. An empty cell is a hole. The second layout may have other
columns, which are not read.
"""

import csv
import graphlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deitlt_tf.data import storage
from deitlt_tf.data.dataset import Note, and_more, plain_name, print_note
from deitlt_tf.data.taxonomy import Lineage, Taxonomy, from_lineages

TREE = ("name", "parent", "rank")  # columns of the second layout
DELIMITERS = "\t;"  # before commas, which are in the names of some files with tabs


class _Row(NamedTuple):
    """A row of the file: its place, as file:line, and its cells."""

    place: str
    cells: tuple[str, ...]


class _Node(NamedTuple):
    """A row of the second layout."""

    place: str
    parent: str
    rank: str


def read(file: str, class_names: Sequence[str], *, note: Note = print_note) -> Taxonomy:
    """The taxonomy of these classes from a CSV or TSV file.

    file: path or URL; separated by tabs, semicolons or commas, whichever its first line has. Quotes are those of CSV.
    class_names: of the data, in label order. Rows of other classes are left out, and counted in a note.
    Raises FileNotFoundError, or ValueError that names file, row and name: for a class without a row or with two rows,
    a node with two parents, a cycle, a missing rank, and rows of another length than the first line.
    """
    if not storage.is_file(file):
        raise FileNotFoundError(f"taxonomy_file={file}: there is no such file.")
    header, rows = _rows(file)
    if {*TREE} <= {name.lower() for name in header}:
        lineages, ranks, places, others = _from_tree(file, header, rows, class_names)
    else:
        lineages, ranks, places, others = _from_columns(file, header, rows, class_names)
    if others:
        note(f"{file} has {others} rows of classes that the data does not have; they are left out.")
    try:
        return from_lineages(lineages, ranks, places=places)
    except ValueError as error:
        raise ValueError(f"{file} is not a taxonomy: {error}") from error


def write(file: str, taxonomy: Taxonomy) -> None:
    """Write a taxonomy in the first layout, so that `read` gives it back. file: path on a disk."""
    quoted = any(mark in rank for rank in taxonomy.ranks for mark in DELIMITERS)
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
        writer.writerow(taxonomy.ranks)
        for nodes_of_class in taxonomy.ancestors.T.tolist():
            places = zip(nodes_of_class, taxonomy.nodes, taxonomy.holes, strict=True)
            writer.writerow("" if node in holes else nodes[node] for node, nodes, holes in places)


def _rows(file: str) -> tuple[tuple[str, ...], list[_Row]]:
    """(header, rows) of the file, without blank rows. Raises ValueError that names the row."""
    lines = storage.read_text(file).split("\n")
    first = next(filter(str.strip, lines), "")
    unquoted = re.sub(r'"(?:[^"]|"")*"', "", first)
    delimiter = next((mark for mark in DELIMITERS if mark in unquoted), ",")
    reader = csv.reader(iter(f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    rows = []
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                rows.append(_Row(f"{file}:{reader.line_num}", tuple(map(plain_name, cells))))
    except csv.Error as error:
        raise ValueError(f"{file}:{reader.line_num} is not CSV: {error}. A quote inside quotes is doubled.") from error
    if len(rows) < 2:
        raise ValueError(f"{file} has no rows: it should hold a line of column names, then a row for each class.")
    header = rows[0].cells
    if len(header) < 2:
        raise ValueError(
            f"{rows[0].place} has the one column {header[0]!r}: the ranks are missing. Write the class and its ranks, "
            "separated by commas, semicolons or tabs."
        )
    for number, name in enumerate(header):
        if not name:
            raise ValueError(f"{rows[0].place}: column {number + 1} has no name, which is that of its rank.")
        if name in header[:number]:
            raise ValueError(f"{rows[0].place}: two columns have the name {name!r}.")
    for row in rows[1:]:
        if len(row.cells) != len(header):
            wanted = f"the first line has {len(header)}: {', '.join(header)}"
            raise ValueError(f"{row.place} has {len(row.cells)} columns, but {wanted}. Leave unknown names empty.")
    return header, rows[1:]


# ---- a row for each class --------------------------------------------------------------------------------------------


def _from_columns(
    file: str, header: Sequence[str], rows: Sequence[_Row], class_names: Sequence[str]
) -> tuple[list[Lineage], Sequence[str], list[str], int]:
    """(lineages, ranks, places, number of rows of other classes) of the first layout."""
    row_of: dict[str, _Row] = {}
    for row in rows:
        name = row.cells[0]
        if not name:
            raise ValueError(f"{row.place} has no name in the column {header[0]!r}, which is that of the classes.")
        if name in row_of:
            raise ValueError(
                f"{row_of[name].place} and {row.place} have the same class, {name!r}: give each class a row and a name "
                "of its own."
            )
        row_of[name] = row
    chosen = [row_of[name] for name in _with_rows(file, class_names, row_of)]
    for rank in range(1, len(header)):
        if not any(row.cells[rank] for row in chosen):
            raise ValueError(f"{file}: no class of the data has a name in the column {header[rank]!r}: leave it out.")
    _require_one_parent(header, chosen)
    return [row.cells for row in chosen], header, [row.place for row in chosen], len(row_of) - len(chosen)


def _with_rows(file: str, class_names: Sequence[str], rows: dict[str, _Row] | dict[str, _Node]) -> list[str]:
    """The class names as the file writes them. Raises ValueError for a class without a row."""
    names = [plain_name(name) for name in class_names]
    if missing := [name for name in names if name not in rows]:
        other = next((row for row in rows if row.casefold() == missing[0].casefold()), "")
        near = f", but one for {other!r}" if other else ""
        raise ValueError(f"{file} has no row for the class {missing[0]!r} of the data{and_more(missing)}{near}.")
    return names


def _require_one_parent(header: Sequence[str], rows: Sequence[_Row]) -> None:
    """Raises ValueError for a name of a rank under two parents, which is a mistake in most files.

    Where everything above differs as well, over two ranks or more, two nodes have one name: Oenanthe is a genus of
    birds and one of plants. The coarsest rank that differs is judged first, so that its name is the one in the message.
    """
    for rank in range(len(header) - 2, 0, -1):
        examples: dict[str, list[_Row]] = {}  # {name: a row for each of its lineages}
        for row in rows:
            name, above = row.cells[rank], row.cells[rank + 1 :]
            others = examples.setdefault(name, [])
            if not name or any(other.cells[rank + 1 :] == above for other in others):
                continue
            for other in others:
                pairs = [*zip(other.cells[rank + 1 :], above, strict=True)]
                at = next(i for i, (a, b) in enumerate(pairs) if a != b)
                homonyms = len(pairs) > 1 and all(a and b and a != b for a, b in pairs)
                if homonyms or any(a for a, _ in pairs[:at]):  # a named parent of both is judged at its own rank
                    continue
                parents = " and ".join(repr(parent) if parent else "no name" for parent in pairs[at])
                raise ValueError(
                    f"{row.place}: {header[rank]} {name!r} has two parents at rank {header[rank + 1 + at]!r}, "
                    f"{parents}; the first is in {other.place}. Columns go from the finest rank to the coarsest."
                )
            others.append(row)


# ---- a row for each node ---------------------------------------------------------------------------------------------


def _from_tree(
    file: str, header: Sequence[str], rows: Sequence[_Row], class_names: Sequence[str]
) -> tuple[list[Lineage], Sequence[str], list[str], int]:
    """(lineages, ranks, places, number of classes that the data does not have) of the second layout."""
    nodes = _nodes(header, rows)
    names = _with_rows(file, class_names, nodes)
    chains = [[*_chain(name, nodes)] for name in names]
    finest = nodes[names[0]].rank
    for name in names:
        if nodes[name].rank != finest:
            both = f"{names[0]!r} is a {finest}, {name!r} a {nodes[name].rank}"
            raise ValueError(f"{nodes[name].place}: all classes of the data need one rank, but {both}.")
    ranks = _order_of_ranks(file, chains, nodes)
    if len(ranks) < 2:
        raise ValueError(f"{file} has no rank above {finest!r}: no class of the data has a parent.")
    by_rank = [{nodes[name].rank: name for name in chain} for chain in chains]
    lineages: list[Lineage] = [tuple(of_class.get(rank) for rank in ranks) for of_class in by_rank]
    others = {name for name, node in nodes.items() if node.rank == finest} - {*names}
    return lineages, ranks, [nodes[name].place for name in names], len(others)


def _nodes(header: Sequence[str], rows: Sequence[_Row]) -> dict[str, _Node]:
    """{name: node} of all rows. Raises ValueError for what is no tree, and names the row."""
    at = [[name.lower() for name in header].index(column) for column in TREE]
    nodes: dict[str, _Node] = {}
    for place, cells in rows:
        name, parent, rank = (cells[i] for i in at)
        if not name or not rank:
            raise ValueError(f"{place} has no {'rank for ' + repr(name) if name else 'name'}: each node needs one.")
        if name in nodes:
            both = f"{nodes[name].place} and {place}"
            if parent != nodes[name].parent:
                parents = " and ".join(repr(x) if x else "none" for x in (nodes[name].parent, parent))
                raise ValueError(f"{both} give {name!r} two parents, {parents}: a node has one parent.")
            raise ValueError(f"{both} have the same name, {name!r}: give each node a row and a name of its own.")
        nodes[name] = _Node(place, parent, rank)
    for name, node in nodes.items():
        if node.parent and node.parent not in nodes:
            raise ValueError(f"{node.place}: {node.parent!r}, the parent of {name!r}, has no row of its own.")
    try:
        graphlib.TopologicalSorter({name: [node.parent] for name, node in nodes.items() if node.parent}).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][::-1]  # from child to parent
        start = min(circle, key=lambda name: [*nodes].index(name))
        circle = circle[:-1][circle.index(start) :] + circle[:-1][: circle.index(start)]
        way = " -> ".join([*circle, start])
        raise ValueError(f"{nodes[start].place}: {start!r} is above itself, by the parents {way}.") from None
    for name, node in nodes.items():
        if node.parent and nodes[node.parent].rank == node.rank:
            raise ValueError(f"{node.place}: {name!r} and its parent {node.parent!r} have one rank, {node.rank!r}.")
    return nodes


def _chain(name: str, nodes: dict[str, _Node]) -> Iterator[str]:
    """The name, its parent, and so on up to the top."""
    while name:
        yield name
        name = nodes[name].parent


def _order_of_ranks(file: str, chains: Sequence[Sequence[str]], nodes: dict[str, _Node]) -> list[str]:
    """All ranks of these chains, the finest first. Raises ValueError if a rank is above and below another one."""
    finer: dict[str, dict[str, None]] = {}
    for chain in chains:
        ranks = [nodes[name].rank for name in chain]
        for below, rank in zip([None, *ranks], ranks, strict=False):
            finer.setdefault(rank, {}).update({} if below is None else {below: None})
    try:
        return [*graphlib.TopologicalSorter(finer).static_order()]
    except graphlib.CycleError as error:
        two = " and ".join(map(repr, dict.fromkeys(error.args[1])))
        raise ValueError(f"{file}: the ranks {two} stand above each other, so their order is not known.") from None
