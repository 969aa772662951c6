"""The lineage of one row: names of species joined from genus and epithet, subspecies rolled up, hybrids told."""

import re
from collections import Counter
from collections.abc import Mapping

from deitlt_tf.data.table.columns import RANKS

HYBRID, WITHOUT = "hybrid", "without"  # why a row has no lineage

# × before a name, or an x that stands alone: Anas platyrhynchos × acuta, Mentha x piperita.
_HYBRID = re.compile(r"\u00d7|(^|\s)[xX](\s|$)")
# Not a species: "Acer sp.", "Lycosa cf. tarantula", "Bombus nr. lucorum".
_OPEN = re.compile(r"(^|\s)(spp?|indet|cf|aff|nr|gen)(\.|\s|$)", re.IGNORECASE)

Lineage = tuple[str | None, ...]


def lineage(cells: Mapping[str, str | None], *, rank: str, said: Counter[str] | None = None) -> Lineage | str:
    """The names from kingdom down to `rank`, None for a hole; or HYBRID or WITHOUT, why the row has none.

    cells: {role: value} of ranks, scientific_name and epithet. rank: one of RANKS, or another column of the table,
    whose value is then the whole lineage. said: counts the species that were joined or rolled up.
    """
    clean = {role: " ".join(value.split()) if value else None for role, value in cells.items()}
    if rank not in RANKS:
        return (clean[rank],) if clean.get(rank) else WITHOUT
    wanted = RANKS[: RANKS.index(rank) + 1]
    if any(_HYBRID.search(clean.get(role) or "") for role in ("scientific_name", "species", "epithet", "genus")):
        return HYBRID
    names = {name: clean.get(name) for name in RANKS}
    if rank == "species":
        names["species"] = _species(clean, said=Counter() if said is None else said)
    return tuple(names[name] for name in wanted) if names[rank] else WITHOUT


def _species(cells: Mapping[str, str | None], *, said: Counter[str]) -> str | None:
    """The two words of a species."""
    name, genus = cells.get("species") or cells.get("epithet"), cells.get("genus")
    if not name:
        name = cells.get("scientific_name")
        if not name or len(name.split()) < 2:
            return None
    if _OPEN.search(name):
        return None
    words = name.split()
    if len(words) == 1:
        if "genus" not in cells:
            return name
        if not genus:
            return None
        said["joined"] += 1
        return f"{genus} {name}"
    if words[1].startswith("(") and len(words) > 2:  # a subgenus: Bombus (Pyrobombus) hypnorum
        words = [words[0], *words[2:]]
    if not words[1][0].islower():  # an author behind a genus: Parus Linnaeus
        return None
    if len(words) > 2:
        said["rolled up"] += 1
    return f"{words[0]} {words[1]}"
