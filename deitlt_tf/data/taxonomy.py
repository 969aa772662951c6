"""The taxonomy of the classes: ranks such as species, genus and family, and the node of each class at each rank.

The key of a node is the lineage from it upwards and never one name, because epithets and genera repeat: Oenanthe is a
bird and a plant. Where a lineage has a hole, the hole is a node of its own: two species without a known genus are not
of one genus. So every class has a node at every rank, and the classes form one tree.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_UNFIT = re.compile("[\0\n\r\v\f\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")  # in no name, see `is_name`

# Names from the finest rank upwards; None or "" is a hole.
Lineage = Sequence[str | None]


@dataclass(frozen=True, eq=False)
class Taxonomy:
    """The classes as a tree with the same R ranks everywhere.

    ranks: R names of ranks, the finest first, such as ("species", "genus", "family"). Classes are nodes of the first.
    nodes: for each rank the names of its nodes, unique within the rank. nodes[0] are the class names in label order.
    ancestors: int32 [R, C], read-only: the node of each class at each rank. ancestors[0] is 0..C-1.
    holes: for each rank the nodes that stand for a name which is not known.
    Raises ValueError that names the rank or the node, if this is not a tree: a node without classes, with two parents
    or with the name of another node of its rank.
    """

    ranks: tuple[str, ...]
    nodes: tuple[tuple[str, ...], ...]
    ancestors: np.ndarray
    holes: tuple[frozenset[int], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "holes", self.holes or (frozenset(),) * len(self.ranks))
        _check_ranks(self.ranks)
        shape = (len(self.ranks), len(self.nodes[0]) if self.nodes else 0)
        if self.ancestors.dtype != np.int32 or self.ancestors.shape != shape or not shape[1]:
            raise ValueError(
                f"ancestors must be int32 {list(shape)}; got {self.ancestors.dtype} {self.ancestors.shape}"
            )
        if not len(self.nodes) == len(self.holes) == len(self.ranks):
            raise ValueError(f"{len(self.ranks)} ranks need as many lists of nodes; got {len(self.nodes)}")
        for rank, names, row in zip(self.ranks, self.nodes, self.ancestors, strict=True):
            if row.min() < 0 or row.max() >= len(names) or not np.bincount(row, minlength=len(names)).all():
                raise ValueError(f"rank {rank!r} has {len(names)} nodes, and each of them needs a class")
            _require_names(names, what=f"a node of rank {rank!r}")
            if len(set(names)) < len(names):
                name = next(name for name, count in Counter(names).items() if count > 1)
                raise ValueError(f"rank {rank!r} has two nodes of one name, {name!r}")
        if not np.array_equal(self.ancestors[0], np.arange(shape[1])):
            raise ValueError(f"the nodes of the first rank, {self.ranks[0]!r}, must be the classes in their order")
        for finer in range(len(self.ranks) - 1):
            several = np.flatnonzero(self.parents(finer)[self.ancestors[finer]] != self.ancestors[finer + 1])
            if several.size:
                name = self.nodes[finer][self.ancestors[finer][several[0]]]
                raise ValueError(f"{self.ranks[finer]} {name!r} has two parents at rank {self.ranks[finer + 1]!r}")
        self.ancestors.setflags(write=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The C classes in label order: the nodes of the finest rank."""
        return self.nodes[0]

    def parents(self, rank: int) -> np.ndarray:
        """int32 [nodes of `rank`]: the node of the next coarser rank that each node belongs to. rank: index."""
        _, first = np.unique(self.ancestors[rank], return_index=True)
        return self.ancestors[rank + 1][first]

    def sizes(self, rank: int) -> np.ndarray:
        """int64 [nodes of `rank`]: how many classes each node has. rank: index."""
        return np.bincount(self.ancestors[rank], minlength=len(self.nodes[rank]))

    def number_of_names(self) -> dict[str, int]:
        """{rank: number of its nodes that have a name}, so without the holes."""
        counted = zip(self.ranks, self.nodes, self.holes, strict=True)
        return {rank: len(nodes) - len(holes) for rank, nodes, holes in counted}

    def to_dict(self) -> dict[str, Any]:
        """The taxonomy as strings, lists and numbers for a JSON file; `from_dict` reads it.

        {"ranks": [R], "nodes": R lists of names, "parents": R - 1 lists of nodes of the next rank, "holes": R lists}.
        """
        return {
            "ranks": list(self.ranks),
            "nodes": [list(names) for names in self.nodes],
            "parents": [self.parents(rank).tolist() for rank in range(len(self.ranks) - 1)],
            "holes": [sorted(holes) for holes in self.holes],
        }

    def require_classes(self, class_names: Sequence[str], *, place: str) -> None:
        """Raises ValueError unless these are the classes, in this order. place: where the taxonomy comes from."""
        if len(class_names) != len(self.class_names):
            raise ValueError(
                f"{place} is a taxonomy of {len(self.class_names)} classes, the data has {len(class_names)}."
            )
        for label, (ours, theirs) in enumerate(zip(self.class_names, class_names, strict=True)):
            if ours != theirs:
                same = set(self.class_names) == set(class_names)
                what = "the classes in another order than" if same else "other classes than"
                raise ValueError(f"{place} has {what} the data: class {label} is {ours!r} there, {theirs!r} here.")


def from_dict(value: Any, *, place: str) -> Taxonomy:
    """The taxonomy that `Taxonomy.to_dict` has written. place: where it stands, for the message.

    Raises ValueError for anything else.
    """
    try:
        ranks, nodes, parents = value["ranks"], value["nodes"], value["parents"]
        holes = tuple(frozenset(map(int, of_rank)) for of_rank in value["holes"])
        texts = [*ranks, *(name for names in nodes for name in names)]
        if not all(isinstance(text, str) for text in texts) or len(parents) != len(ranks) - 1:
            raise ValueError("names must be texts, and all ranks but the coarsest need parents")
        rows = [np.arange(len(nodes[0]), dtype=np.int32)]
        for row in parents:
            row = np.array(row)
            if row.dtype.kind != "i" or row.ndim != 1 or row.min() < 0 or row.max() > 2**31 - 1:
                raise ValueError("parents must be numbers of nodes")
            rows.append(row.astype(np.int32)[rows[-1]])
        return Taxonomy(tuple(ranks), tuple(map(tuple, nodes)), np.stack(rows), holes)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"{place} does not hold a taxonomy that can be read: {error}") from error


def from_lineages(lineages: Sequence[Lineage], ranks: Sequence[str], *, places: Sequence[str] = ()) -> Taxonomy:
    """The taxonomy of classes with these lineages, in this order.

    lineages: C tuples of R names from the finest rank upwards; None or "" is a hole, but not at the finest rank.
    ranks: R names of ranks, the finest first.
    places: where each lineage stands, such as "birds.csv:17", for the error message; default: "class 17".
    Nodes are numbered in the order of the first class that has them. A node is shown by its name. Where two nodes of a
    rank have one name, their parents follow in brackets: "Oenanthe (Muscicapidae)". A hole is shown by what is below
    it: "no genus (species Aus bus)".
    Raises ValueError that names the place of a lineage of another length or without a class, and both places of one
    class.

    >>> taxonomy = from_lineages([("cat", "animal"), ("car", "vehicle"), ("dog", "animal")], ("class", "kind"))
    >>> taxonomy.nodes[1], taxonomy.ancestors.tolist()
    (('animal', 'vehicle'), [[0, 1, 2], [0, 1, 0]])
    """
    ranks = tuple(ranks)
    _check_ranks(ranks)
    if not lineages:
        raise ValueError("a taxonomy needs at least one class")
    places = places or [f"class {label}" for label in range(len(lineages))]
    plain = [tuple(name or None for name in lineage) for lineage in lineages]
    _check_lineages(plain, ranks, places)
    ancestors = np.empty((len(ranks), len(plain)), np.int32)
    nodes: list[list[str]] = []
    holes: list[frozenset[int]] = []
    for rank in range(len(ranks)):
        # The key: from which rank the lineage starts, which is a finer one for a hole, and the lineage from there up.
        number_of: dict[tuple[str | None, ...], int] = {}
        for label, lineage in enumerate(plain):
            start = rank
            while lineage[start] is None:
                start -= 1
            ancestors[rank, label] = number_of.setdefault(lineage[start:], len(number_of))
        starts = [len(ranks) - len(key) for key in number_of]
        holes.append(frozenset(node for node, start in enumerate(starts) if start < rank))
        known = [(node, key) for node, (key, start) in enumerate(zip(number_of, starts, strict=True)) if start == rank]
        names = [""] * len(starts)
        for (node, _), name in zip(known, _unique_names([key for _, key in known], ranks[rank:]), strict=True):
            names[node] = name
        first = np.unique(ancestors[rank], return_index=True)[1]
        for node in holes[-1]:
            start = starts[node]
            names[node] = f"no {ranks[rank]} ({ranks[start]} {nodes[start][ancestors[start, first[node]]]})"
        nodes.append(names)
    return Taxonomy(ranks, tuple(map(tuple, nodes)), ancestors, tuple(holes))


def is_name(text: str) -> bool:
    """Whether every format keeps a text as the name of a class, node or rank: it is one line of Unicode text.

    False for line breaks of any kind, zeros, and the half characters that stand for bytes that are not UTF-8.

    >>> [is_name(text) for text in ("Parus; major", "Parus\\nmajor", "")]
    [True, False, False]
    """
    return bool(text) and not _UNFIT.search(text)


def _require_names(texts: Sequence[str], *, what: str) -> None:
    """Raises ValueError unless all texts are names. what: they are names of, for the message."""
    if wrong := [text for text in texts if not is_name(text)]:
        raise ValueError(f"{what} has the name {wrong[0]!r}: a name is one line of text")


def _check_ranks(ranks: Sequence[str]) -> None:
    """Raises ValueError unless the ranks have names of their own."""
    if not ranks or not all(ranks):
        raise ValueError("a taxonomy needs ranks, and each rank a name")
    _require_names(ranks, what="a rank")
    if twice := [rank for rank, count in Counter(ranks).items() if count > 1]:
        raise ValueError(f"two ranks have the name {twice[0]!r}")


def _check_lineages(lineages: Sequence[Lineage], ranks: Sequence[str], places: Sequence[str]) -> None:
    """Raises ValueError as `from_lineages` says."""
    place_of: dict[Lineage, str] = {}
    for lineage, place in zip(lineages, places, strict=True):
        if len(lineage) != len(ranks):
            raise ValueError(f"{place} has {len(lineage)} names, but there are {len(ranks)} ranks: {', '.join(ranks)}")
        if lineage[0] is None:
            raise ValueError(f"{place} has no name at the rank {ranks[0]!r}, which is that of the classes")
        if lineage in place_of:
            both = f"{place_of[lineage]} and {place} are one class, {lineage[0]!r}"
            raise ValueError(f"{both}: give each class a name of its own, or make them one class.")
        place_of[lineage] = place


def _unique_names(keys: Sequence[tuple[str | None, ...]], ranks: Sequence[str]) -> list[str]:
    """A name for each key: its first name, and as many of the names above it in brackets as tell it from the others.

    keys: different lineages whose first name is known. ranks: of their names.
    """
    names: Mapping[int, str] = {i: str(key[0]) for i, key in enumerate(keys)}
    shown = dict(names)
    for more in range(1, len(ranks)):
        count = Counter(shown.values())
        alike = [i for i, name in shown.items() if count[name] > 1]
        if not alike:
            break
        for i in alike:
            above = [keys[i][at] or f"no {ranks[at]}" for at in range(1, more + 1)]
            shown[i] = f"{names[i]} ({', '.join(above)})"
    return [shown[i] for i in range(len(keys))]
