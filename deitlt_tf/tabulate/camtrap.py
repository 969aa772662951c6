"""Camtrap DP 1.0, a package of camera trap data: deployments, media and observations.

An observation is of one image, or of an event, a time at one camera; then it counts for all images of that time that
have no observation of their own. Source: camtrap-dp.tdwg.org.
"""

import bisect
import csv
import datetime
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from deitlt_tf.tabulate.archive import Archive
from deitlt_tf.tabulate.rows import Report, Row, ranks_of

DESCRIPTION = "datapackage.json"
PARTS = ("deployments", "media", "observations")
Event = tuple[datetime.datetime, datetime.datetime, str, str]  # start, end, label, id


def is_package(archive: Archive) -> bool:
    """Whether the archive describes itself as one."""
    return DESCRIPTION in archive.names


def rows(archive: Archive, report: Report) -> Iterator[Row]:
    """A row for each image with an observation.

    Raises ValueError that names archive and file, for what is no such package, and for images of several species.
    """
    package, files = _description(archive)
    deployments = {row["deploymentID"]: row for row in _rows_of(archive, files["deployments"], "deploymentID")}
    of_media, events = _observations(archive, files["observations"])
    taxa = {
        str(taxon.get("scientificName")): taxon for taxon in package.get("taxonomic") or [] if isinstance(taxon, dict)
    }
    columns: dict[str, Mapping[str, Any]] = {}
    about = _about(package)
    seen: list[tuple[str, str, str, str]] = []
    chosen: list[tuple[dict[str, str], str, str]] = []
    for row in _rows_of(archive, files["media"], "mediaID", "deploymentID", "filePath"):
        if not (row.get("fileMediatype") or "image/").startswith("image/"):
            report.left_out["that are sounds or films"] += 1
            continue
        labels = of_media.get(row["mediaID"]) or _at_time(row, events)
        if len({label for label, _ in labels}) > 1:
            one, other = sorted({label for label, _ in labels})[:2]
            seen.append((archive.path, row["filePath"], one, other))
        elif labels:
            chosen.append((row, *labels[0]))
        else:
            report.left_out["without an observation"] += 1
    report.several(seen)
    for row, label, event in chosen:
        if label not in columns:
            columns[label] = _columns_of(label, taxa)
        deployment = deployments.get(row["deploymentID"], {})
        address = row["filePath"].startswith(("http://", "https://"))
        yield {
            "image_id": row["mediaID"],
            ("url" if address else "path"): row["filePath"],
            **columns[label],
            "observation_id": event,
            "camera": deployment.get("locationID") or deployment.get("locationName") or row["deploymentID"],
            "place": deployment.get("locationName"),
            "latitude": deployment.get("latitude"),
            "longitude": deployment.get("longitude"),
            "observed_on": row.get("timestamp"),
            **about,
        }


def _description(archive: Archive) -> tuple[dict[str, Any], dict[str, str]]:
    """(the package, {part: its file})."""
    place = f"{archive.path}: {DESCRIPTION}"
    try:
        package = json.loads(archive.read(DESCRIPTION))
        files = {str(part["name"]): str(part["path"]) for part in package["resources"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{place} describes no package of data ({type(error).__name__}: {error}).") from None
    if missing := [part for part in PARTS if part not in files]:
        raise ValueError(f"{place} has no part {missing[0]!r}: it is no Camtrap DP of version 1.")
    return package, files


def _rows_of(archive: Archive, file: str, *needed: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file. Raises ValueError that names file and column."""
    with archive.text(file) as stream:
        try:
            reader = csv.DictReader(stream, strict=True)
            for name in needed:
                if name not in (reader.fieldnames or ()):
                    raise ValueError(f"{archive.path}: {file} has no column {name!r}.")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{archive.path}: {file}:{reader.line_num} has not as many columns as line 1.")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{archive.path}: {file} is not CSV in UTF-8 ({error}).") from None


def _observations(archive: Archive, file: str) -> tuple[dict[str, list[tuple[str, str]]], dict[str, "_Events"]]:
    """({media: [(label, event)]}, {deployment: its events})."""
    of_media: dict[str, list[tuple[str, str]]] = defaultdict(list)
    events: dict[str, list[Event]] = defaultdict(list)
    for row in _rows_of(archive, file, "observationID", "deploymentID", "observationType"):
        kind = row["observationType"]
        label = (row.get("scientificName") or kind) if kind == "animal" else kind
        event = row.get("eventID") or row["observationID"]
        if not label or kind in ("unknown", "unclassified"):
            continue
        if row.get("mediaID"):
            of_media[row["mediaID"]].append((label, event))
        else:
            start, end = (_moment(row.get(name)) for name in ("eventStart", "eventEnd"))
            if start and end:
                events[row["deploymentID"]].append((start, end, label, event))
    return of_media, {deployment: _Events(found) for deployment, found in events.items()}


class _Events:
    """The events of one deployment. latest: for each event, in order of their starts, the latest end up to it."""

    def __init__(self, events: list[Event]):
        self.events = sorted(events)
        self.latest = list(itertools.accumulate((end for _, end, _, _ in self.events), max))

    def at(self, moment: datetime.datetime) -> list[tuple[str, str]]:
        """(label, event) of the events at this time."""
        place = bisect.bisect_right(self.events, moment, key=lambda event: event[0]) - 1
        found = []
        while place >= 0 and self.latest[place] >= moment:
            _, end, label, event = self.events[place]
            if end >= moment:
                found.append((label, event))
            place -= 1
        return found


def _at_time(row: dict[str, str], events: Mapping[str, _Events]) -> list[tuple[str, str]]:
    """(label, event) of the events of its camera at the time of an image."""
    moment, there = _moment(row.get("timestamp")), events.get(row["deploymentID"])
    return there.at(moment) if there and moment else []


def _moment(text: str | None) -> datetime.datetime | None:
    try:
        moment = datetime.datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _columns_of(label: str, taxa: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    taxon = taxa.get(label)
    if taxon is None:
        return {"label": label, **ranks_of({"genus": label.split()[0]} if " " in label else {}, name=label)}
    names = dict(taxon)
    rank = str(taxon.get("taxonRank") or "").lower()
    if rank == "species" and " " in label:
        names.setdefault("genus", label.split()[0])
    elif rank:
        names.setdefault(rank, label)
    common = taxon.get("vernacularNames")
    common = next(iter(common.values()), None) if isinstance(common, dict) else None
    return {"label": label, "scientific_name": label, "common_name": common, **ranks_of(names, name=label)}


def _about(package: Mapping[str, Any]) -> dict[str, Any]:
    """Licence of the media and who holds the rights, as the package says."""
    licenses = [x for x in package.get("licenses") or [] if isinstance(x, dict) and x.get("scope") in (None, "media")]
    people = [x for x in package.get("contributors") or [] if isinstance(x, dict) and x.get("role") == "rightsHolder"]
    license_name = next((x.get("name") or x.get("path") for x in licenses), None)
    return {"license": license_name, "rights_holder": next((x.get("title") for x in people), None)}
