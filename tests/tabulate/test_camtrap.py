"""Camtrap DP: observations of images and of events."""

import csv
import io
import json

import pytest

from deitlt_tf.tabulate import camtrap
from deitlt_tf.tabulate.archive import Archive
from deitlt_tf.tabulate.rows import Report

PACKAGE = {
    "resources": [{"name": name, "path": f"{name}.csv"} for name in ("deployments", "media", "observations")],
    "licenses": [{"name": "CC0-1.0", "scope": "data"}, {"name": "CC-BY-4.0", "scope": "media"}],
    "contributors": [{"title": "INBO", "role": "rightsHolder"}],
    "taxonomic": [
        {
            "scientificName": "Vulpes vulpes",
            "taxonRank": "species",
            "family": "Canidae",
            "vernacularNames": {"eng": "fox"},
        },
        {"scientificName": "Mustelidae", "taxonRank": "family"},
    ],
}
DEPLOYMENTS = [{"deploymentID": "d1", "locationID": "L1", "locationName": "Wood", "latitude": "50.5", "longitude": "4"}]
DEPLOYMENTS += [{"deploymentID": "d2", "locationID": "", "locationName": "", "latitude": "", "longitude": ""}]


def medium(name, *, deployment="d1", minute=0, kind="image/jpeg", path=None):
    time = f"2020-08-02T05:{minute:02d}:00Z"
    path = path or f"{name}.jpg"
    return {"mediaID": name, "deploymentID": deployment, "timestamp": time, "filePath": path, "fileMediatype": kind}


def seen(name="", *, of="animal", media="", deployment="d1", start=0, end=0, event="e1"):
    return {
        "observationID": f"o{name}{media}{start}", "deploymentID": deployment, "mediaID": media, "eventID": event,
        "eventStart": f"2020-08-02T05:{start:02d}:00Z", "eventEnd": f"2020-08-02T05:{end:02d}:00Z",
        "observationType": of, "scientificName": name,
    }  # fmt: skip


MEDIA = [
    medium("m1"), medium("m2", minute=1), medium("m3", minute=30, path="http://x/m3.jpg"),
    medium("m4", kind="video/mp4"), medium("m5", deployment="d2", minute=50), medium("m6", deployment="d2"),
]  # fmt: skip
OBSERVATIONS = [
    seen("Vulpes vulpes", media="m1"),
    seen("Vulpes vulpes", start=0, end=5, event="e9"),
    seen("Mustelidae", start=20, end=40, event="e2"),
    seen(of="blank", deployment="d2", start=50, end=50, event="e3"),
    seen(of="unknown", deployment="d2", media="m6"),
]


@pytest.fixture
def package(tmp_path):
    """package(media, observations, description) -> (rows, what was left out)."""

    def call(media=MEDIA, observations=OBSERVATIONS, description=PACKAGE, drop_several=False, **texts):
        tables = {"deployments.csv": DEPLOYMENTS, "media.csv": media, "observations.csv": observations}
        for name, rows in tables.items():
            stream = io.StringIO()
            writer = csv.DictWriter(stream, [*rows[0]])
            writer.writeheader()
            writer.writerows(rows)
            (tmp_path / name).write_text(stream.getvalue())
        (tmp_path / "datapackage.json").write_text(json.dumps(description))
        for name, text in texts.items():
            (tmp_path / f"{name}.csv").write_text(text)
        report = Report(drop_several=drop_several)
        archive = Archive(str(tmp_path))
        assert camtrap.is_package(archive)
        rows = list(camtrap.rows(archive, report))
        return rows, {reason: count for reason, count in report.left_out.items() if count}

    return call


def test_images_get_their_own_observation_or_that_of_their_event(package):
    rows, left_out = package()
    assert [(row["image_id"], row["label"], row["observation_id"]) for row in rows] == [
        ("m1", "Vulpes vulpes", "e1"), ("m2", "Vulpes vulpes", "e9"), ("m3", "Mustelidae", "e2"), ("m5", "blank", "e3")
    ]  # fmt: skip
    fox = rows[0]
    assert (fox["species"], fox["genus"], fox["family"]) == ("Vulpes vulpes", "Vulpes", "Canidae")
    assert (fox["common_name"], fox["camera"], fox["place"], fox["license"]) == ("fox", "L1", "Wood", "CC-BY-4.0")
    assert fox["rights_holder"] == "INBO" and fox["path"] == "m1.jpg" and fox["observed_on"] == "2020-08-02T05:00:00Z"
    assert rows[2]["url"] == "http://x/m3.jpg" and "path" not in rows[2]
    assert rows[2]["family"] == "Mustelidae" and rows[2]["species"] is None
    assert rows[3]["camera"] == "d2" and rows[3]["species"] is None
    assert left_out == {"that are sounds or films": 1, "without an observation": 1}


def test_two_species_in_an_image_or_in_an_event(package):
    several = [*OBSERVATIONS, seen("Mustelidae", start=1, end=2, event="e7")]
    with pytest.raises(ValueError, match=r"m2\.jpg has 'Mustelidae' and 'Vulpes vulpes', but an image has one class"):
        package(observations=several)
    rows, left_out = package(observations=several, drop_several=True)
    assert [row["image_id"] for row in rows] == ["m1", "m3", "m5"] and left_out["with several species"] == 1
    twice = [*OBSERVATIONS, seen("Vulpes vulpes", media="m1", event="e5")]
    assert len(package(observations=twice)[0]) == 4


def test_a_long_event_among_many_short_ones(package):
    short = [seen("Mustelidae", start=10, end=10, event=f"s{i}") for i in range(200)]
    rows, _ = package(media=[medium("m", minute=40)], observations=[seen("Vulpes vulpes", start=5, end=45), *short])
    assert [row["label"] for row in rows] == ["Vulpes vulpes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"description": {}}, r"datapackage\.json describes no package of data \(KeyError: 'resources'\)"),
        ({"description": {"resources": []}}, "has no part 'deployments': it is no Camtrap DP of version 1"),
        ({"media": [{"mediaID": "m"}]}, r"media\.csv has no column 'deploymentID'"),
    ],
)
def test_damaged_packages(package, options, message):
    with pytest.raises(ValueError, match=message):
        package(**options)


def test_a_row_that_is_cut_off(package):
    parts = [{"name": "deployments", "path": "deployments.csv"}, {"name": "media", "path": "media.csv"}]
    description = PACKAGE | {"resources": [*parts, {"name": "observations", "path": "cut.csv"}]}
    with pytest.raises(ValueError, match=r"cut\.csv:2 has not as many columns as line 1"):
        package(description=description, cut=",".join(OBSERVATIONS[0]) + "\n1,2,3\n")
