"""Which column of a table means what: the names that BioTrove, TreeOfLife, GBIF, iNaturalist and camera traps use."""

import difflib
import re
from collections.abc import Iterable, Sequence

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")  # from the root to the finest

# {role: names of columns, the first that a table has counts}. Names are compared without case, blanks and underscores.
NAMES: dict[str, tuple[str, ...]] = {
    "id": ("photo_id", "image_id", "media_id", "photo_uuid", "uuid", "id"),
    "url": ("photo_url", "image_url", "source_url", "access_uri", "identifier", "url"),
    "path": ("path", "file_path", "image_path", "file_name", "file"),
    "scientific_name": ("scientific_name", "taxon_name"),
    "epithet": ("specific_epithet", "epithet"),
    "common_name": ("common_name", "vernacular_name", "common"),
    "observation": (
        *("observation_uuid", "observation_id", "sequence_id", "seq_id", "event_id", "occurrence_id", "gbif_id"),
        *("source_id",),
    ),
    "camera": ("camera_id", "camera", "deployment_id", "location_id", "location"),
    "place": ("place_id", "place", "site_id", "site", "locality", "plot"),
    "latitude": ("latitude", "decimal_latitude", "lat"),
    "longitude": ("longitude", "decimal_longitude", "lon", "lng"),
    "day": ("observed_on", "event_date", "date_captured", "observation_date", "datetime", "timestamp", "date", "day"),
    "license": ("license", "licence", "license_name"),
    "rights_holder": ("rights_holder",),
    "creator": ("creator", "photographer", "observer_login", "recorded_by", "observer_name", "observer_id"),
}
NAMES |= {rank: (rank,) for rank in RANKS}

# Roles whose columns hold text, whatever the first rows of a CSV look like.
TEXT = ("url", "path", "scientific_name", "epithet", "common_name", "license", "rights_holder", "creator", *RANKS)
# Roles whose columns are text unless they hold whole numbers: as a fraction, 12.1 and 12.10 are one number.
NO_FRACTIONS = ("id", "observation", "camera", "place")


def plain(name: str) -> str:
    """The name of a column as it is compared: `dwc:decimalLatitude` is decimallatitude."""
    return re.sub(r"[\s_-]", "", name.rpartition(":")[2]).lower()


def recognise(names: Iterable[str]) -> dict[str, str]:
    """{role: name of its column} of the roles that a table with columns of these names has."""
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain(name), name)
    found = {role: [by_plain[plain(x)] for x in known if plain(x) in by_plain] for role, known in NAMES.items()}
    return {role: columns[0] for role, columns in found.items() if columns}


def near(name: str, names: Sequence[str]) -> str:
    """The end of a sentence on a column that is not there: which names are near it, or which there are."""
    lower = {other.lower(): other for other in names}
    close = [lower[x] for x in difflib.get_close_matches(name.lower(), [*lower], n=3, cutoff=0.6)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"its columns are {', '.join(names[:20])}{', ...' if len(names) > 20 else '.'}"
