"""Darwin Core archives, as GBIF and iNaturalist export them: occurrences, and images as an extension."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deitlt_tf.data.table.columns import RANKS
from deitlt_tf.tabulate.archive import Archive
from deitlt_tf.tabulate.rows import BLOCK, Report

if TYPE_CHECKING:
    import pyarrow as pa

DESCRIPTION = "meta.xml"
IMAGES = ("Multimedia", "Image", "SimpleMultimedia")  # last words of the row types of extensions with images
# {our column: terms of the core, the first that is there}
CORE = {
    **{rank: (rank,) for rank in RANKS},
    "epithet": ("specificEpithet",),
    "scientific_name": ("scientificName",),
    "common_name": ("vernacularName",),
    "observed_on": ("eventDate",),
    "latitude": ("decimalLatitude",),
    "longitude": ("decimalLongitude",),
    "place": ("locality",),
    "country": ("countryCode", "country"),
    "core_license": ("license",),
    "core_rights_holder": ("rightsHolder",),
    "core_creator": ("recordedBy",),
}
MEDIA = {
    "url": ("accessURI", "identifier"),
    "type": ("type",),
    "format": ("format",),
    "license": ("license", "rights"),
    "rights_holder": ("rightsHolder", "Owner"),
    "creator": ("creator",),
}


@dataclass(frozen=True)
class _File:
    """One file of the archive, as meta.xml describes it. columns: {term: number of its column}. key: that of the id."""

    name: str
    row_type: str
    columns: dict[str, int]
    key: int
    delimiter: str
    quote: str
    skip: int


def blocks(archive: Archive, report: Report) -> "Iterator[pa.Table]":
    """Tables with a row for each image.

    Raises ValueError that names archive and file, for what is no such archive, and for images of several species.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    core, extensions = _description(archive)
    images = [file for file in extensions if file.row_type in IMAGES]
    if not images:
        others = ", ".join(file.row_type for file in extensions) or "none"
        raise ValueError(f"{archive.path} has no images: it needs an extension Multimedia, and has {others}.")
    media = _table(archive, images[0], MEDIA)
    if "url" not in media.column_names:
        raise ValueError(f"{archive.path}: {images[0].name} has no addresses of images (identifier or accessURI).")
    media = _still_images(media, report)
    media = media.append_column("row", pa.array(range(len(media)), pa.int64()))
    occurrences = _table(archive, core, CORE)
    joined = media.join(occurrences, keys="key", join_type="inner").sort_by("row")
    report.left_out["without an occurrence"] += len(media) - len(joined)
    columns = {name: joined[name] for name in joined.column_names}
    for name in ("license", "rights_holder", "creator"):
        both = [columns[x] for x in (name, f"core_{name}") if x in columns]
        if both:
            columns[name] = pc.coalesce(*both)
    columns["species"] = _species(columns, len(joined))
    columns["label"] = pc.coalesce(columns["species"], columns.get("scientific_name", columns["species"]))
    columns["observation_id"] = columns["key"]
    table = pa.table(
        {x: y for x, y in columns.items() if not x.startswith("core_") and x not in ("key", "row", "epithet")}
    )
    report.left_out["without a name"] += table["label"].null_count
    table = _one_class(table.filter(pc.is_valid(table["label"])), archive, report)
    for start in range(0, len(table), BLOCK):
        block = table.slice(start, BLOCK)
        for name in ("latitude", "longitude"):
            if name in block.column_names:
                place = block.column_names.index(name)
                good = pc.match_substring_regex(block[name], r"^-?[0-9]+(\.[0-9]+)?$")
                numbers = pc.if_else(good, block[name], pa.scalar(None, pa.string())).cast(pa.float64())
                block = block.set_column(place, name, numbers)
        yield block


def _species(columns: "dict[str, pa.ChunkedArray]", count: int) -> "pa.ChunkedArray":
    """The species of each row: as the archive has it, else genus and epithet."""
    import pyarrow as pa
    import pyarrow.compute as pc

    species = columns.get("species", pa.chunked_array([pa.nulls(count, pa.string())]))
    if "genus" in columns and "epithet" in columns:
        species = pc.coalesce(species, pc.binary_join_element_wise(columns["genus"], columns["epithet"], " "))
    return species


def _one_class(table: "pa.Table", archive: Archive, report: Report) -> "pa.Table":
    """The rows of images that have one label; a row that repeats an image is left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    counted = (
        table.select(["url", "label"]).group_by("url").aggregate([("label", "count_distinct"), ("label", "count")])
    )
    mixed = counted.filter(pc.greater(counted["label_count_distinct"], 1))["url"]
    if len(mixed):
        first = table.filter(pc.equal(table["url"], mixed[0]))["label"].unique().to_pylist()
        examples = [(archive.path, str(url), str(first[0]), str(first[1])) for url in mixed.to_pylist()]
        report.several(examples)
        table = table.filter(pc.invert(pc.is_in(table["url"], value_set=mixed.combine_chunks())))
    numbered = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    firsts = numbered.group_by("url").aggregate([("row", "min")])["row_min"].combine_chunks()
    report.left_out["that repeat an image"] += len(table) - len(firsts)
    return table.take(firsts.take(pc.sort_indices(firsts)))


def _still_images(media: "pa.Table", report: Report) -> "pa.Table":
    """The rows with an address, without sounds and films."""
    import pyarrow.compute as pc

    there = media.filter(pc.is_valid(media["url"]))
    report.left_out["without an address"] += len(media) - len(there)
    still = there
    if "format" in there.column_names:
        still = still.filter(pc.fill_null(pc.match_substring_regex(still["format"], "^(image/|[^/]*$)"), True))
    if "type" in there.column_names:
        # StillImage and Image, and not MovingImage.
        still = still.filter(pc.fill_null(pc.match_substring_regex(still["type"], "(?i)(^|[^g])image"), True))
    report.left_out["that are sounds or films"] += len(there) - len(still)
    return still


def _table(archive: Archive, file: _File, wanted: dict[str, tuple[str, ...]]) -> "pa.Table":
    """The wanted columns of a file, and `key`, the id of the occurrence, as text."""
    import pyarrow as pa
    from pyarrow import csv

    numbers = {name: [file.columns[term] for term in terms if term in file.columns] for name, terms in wanted.items()}
    used = {name: found[0] for name, found in numbers.items() if found} | {"key": file.key}
    with archive.open(file.name) as stream:
        width = stream.readline().decode("utf-8-sig", "replace").count(file.delimiter) + 1
    if wrong := [number for number in used.values() if not 0 <= number < width]:
        raise ValueError(
            f"{archive.path}: {DESCRIPTION} names column {wrong[0]} of {file.name}, whose first line has {width}."
        )
    names = [f"column {i}" for i in range(width)]
    include = [*dict.fromkeys(names[number] for number in used.values())]
    try:
        with archive.open(file.name) as stream:
            table = csv.read_csv(
                stream,
                read_options=csv.ReadOptions(column_names=names, skip_rows=file.skip, use_threads=False),
                parse_options=csv.ParseOptions(
                    delimiter=file.delimiter,
                    quote_char=file.quote or False,
                    newlines_in_values=bool(file.quote),
                ),
                convert_options=csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()),
                    include_columns=include,
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
    except pa.ArrowException as error:
        message = " ".join(str(error).split())[:200]
        raise ValueError(f"{archive.path}: {file.name} cannot be read ({message}).") from None
    return pa.table({name: table[names[number]] for name, number in used.items()})


def _description(archive: Archive) -> tuple[_File, list[_File]]:
    """(core, extensions) that meta.xml names."""
    data = archive.read(DESCRIPTION)
    place = f"{archive.path}: {DESCRIPTION}"
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise ValueError(f"{place} has a document type of its own, which no archive needs.")
    try:
        root = ET.fromstring(data)
    except ET.ParseError as error:
        raise ValueError(f"{place} is not XML: {error}.") from None
    files: dict[str, list[_File]] = {"core": [], "extension": []}
    for element in root:
        kind = element.tag.rpartition("}")[2]
        if kind in files:
            files[kind].append(_file(element, place))
    if not files["core"]:
        raise ValueError(f"{place} names no core: it is no Darwin Core archive.")
    return files["core"][0], files["extension"]


def _file(element: ET.Element, place: str) -> _File:
    inside: dict[str, list[ET.Element]] = {}
    for child in element.iter():
        inside.setdefault(child.tag.rpartition("}")[2], []).append(child)
    try:
        if not (delimiter := _unescaped(element.attrib.get("fieldsTerminatedBy", ","))):
            raise KeyError("fieldsTerminatedBy")
        key = (inside.get("id") or inside["coreid"])[0]
        columns = {
            x.attrib["term"].rpartition("/")[2]: int(x.attrib["index"]) for x in inside["field"] if "index" in x.attrib
        }
        return _File(
            name=(inside["location"][0].text or "").strip(),
            row_type=element.attrib.get("rowType", "").rpartition("/")[2],
            columns=columns,
            key=int(key.attrib["index"]),
            delimiter=delimiter,
            quote=_unescaped(element.attrib.get("fieldsEnclosedBy", '"')),
            skip=int(element.attrib.get("ignoreHeaderLines", "0")),
        )
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{place} describes a file without {error}.") from None


def _unescaped(text: str) -> str:
    return text.replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r")[:1]
