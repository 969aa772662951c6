"""Darwin Core archives: of GBIF, of iNaturalist, and damaged ones."""

import zipfile

import pyarrow as pa
import pytest

from deitlt_tf.tabulate import darwin_core
from deitlt_tf.tabulate.archive import Archive
from deitlt_tf.tabulate.rows import Report

TERMS = "http://rs.tdwg.org/dwc/terms/"
CORE = ["gbifID", "kingdom", "family", "genus", "species", "scientificName", "eventDate", "decimalLatitude", "license"]
MEDIA = ["gbifID", "type", "format", "identifier", "creator", "license"]
OCCURRENCES = [
    ["11", "Animalia", "Apidae", "Apis", "Apis mellifera", 'Apis "mellifera" L.', "2020-05-01", "1.5", "CC0"],
    ["12", "Animalia", "Apidae", "Bombus", "", "Bombus sp.", "2020-05-02", "", "CC0"],
    ["13", "Animalia", "", "", "", "", "", "north", "CC0"],
]
IMAGES = [
    ["11", "StillImage", "image/jpeg", "http://x/1.jpg", "Ana", "CC-BY"],
    ["11", "StillImage", "image/png", "http://x/2.png", "", ""],
    ["11", "Sound", "audio/mpeg", "http://x/3.mp3", "", ""],
    ["11", "StillImage", "image/jpeg", "", "", ""],
    ["12", "", "", "http://x/4.jpg", "", ""],
    ["13", "StillImage", "image/jpeg", "http://x/5.jpg", "", ""],
    ["99", "StillImage", "image/jpeg", "http://x/6.jpg", "", ""],
    ["11", "StillImage", "image/jpeg", "http://x/1.jpg", "Ana", "CC-BY"],
]


def part(kind, name, row_type, terms, *, delimiter="\\t", quote=""):
    key = "id" if kind == "core" else "coreid"
    fields = "".join(f'<field index="{i}" term="{TERMS}{term}"/>' for i, term in enumerate(terms))
    return (
        f'<{kind} encoding="UTF-8" fieldsTerminatedBy="{delimiter}" linesTerminatedBy="\\n" fieldsEnclosedBy="{quote}" '
        f'ignoreHeaderLines="1" rowType="{row_type}"><files><location>{name}</location></files><{key} index="0"/>'
        f"{fields}</{kind}>"
    )


def lines(header, rows, delimiter="\t"):
    return "".join(delimiter.join(row) + "\n" for row in [header, *rows])


def write(
    folder, *, media=IMAGES, occurrences=OCCURRENCES, extension="http://rs.gbif.org/terms/1.0/Multimedia", **other
):
    files = {
        "meta.xml": '<archive xmlns="http://rs.tdwg.org/dwc/text/">'
        + part("core", "occurrence.txt", TERMS + "Occurrence", CORE)
        + part("extension", "multimedia.txt", extension, MEDIA)
        + "</archive>",
        "occurrence.txt": lines(CORE, occurrences),
        "multimedia.txt": lines(MEDIA, media),
        **other,
    }
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            if text is not None:
                archive.writestr(name, text)
    return path


def read(path, *, drop_several=False):
    """(rows, what was left out)."""
    report = Report(drop_several=drop_several)
    rows = [row for block in darwin_core.blocks(Archive(str(path)), report) for row in block.to_pylist()]
    return rows, {reason: count for reason, count in report.left_out.items() if count}


def test_an_archive_of_gbif(tmp_path):
    path = write(tmp_path)
    rows, left_out = read(path)
    assert [row["url"] for row in rows] == ["http://x/1.jpg", "http://x/2.png", "http://x/4.jpg"]
    columns = ("label", "species", "genus", "family", "observation_id", "creator", "license")
    assert {key: rows[0][key] for key in columns} == {
        "label": "Apis mellifera", "species": "Apis mellifera", "genus": "Apis", "family": "Apidae",
        "observation_id": "11", "creator": "Ana", "license": "CC-BY",
    }  # fmt: skip
    assert rows[1]["license"] == "CC0" and rows[1]["latitude"] == 1.5 and rows[2]["latitude"] is None
    assert (
        rows[2]["label"] == "Bombus sp." and rows[2]["species"] is None and rows[0]["scientific_name"].count('"') == 2
    )
    assert left_out == {
        "without an address": 1, "that are sounds or films": 1, "without an occurrence": 1, "without a name": 1,
        "that repeat an image": 1,
    }  # fmt: skip
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "folder")
    assert read(tmp_path / "folder") == (rows, left_out)


def test_commas_and_quotes(tmp_path):
    core = [*CORE[:4], "specificEpithet"]
    meta = (
        '<archive xmlns="http://rs.tdwg.org/dwc/text/">'
        + part("core", "o.csv", TERMS + "Occurrence", core, delimiter=",", quote="&quot;")
        + part(
            "extension",
            "i.csv",
            "http://rs.tdwg.org/ac/terms/Multimedia",
            ["coreid", "accessURI", "rights"],
            delimiter=",",
            quote="&quot;",
        )
        + "</archive>"
    )
    occurrences = 'id,kingdom,family,genus,epithet\n"1",Animalia,"Apidae, ""bees""",Apis,cerana\n'
    images = 'coreid,accessURI,rights\n1,http://x/1.jpg,"a\nb"\n'
    path = write(tmp_path, **{"meta.xml": meta, "o.csv": occurrences, "i.csv": images})
    (row,), _ = read(path)
    assert row["species"] == "Apis cerana" and row["family"] == 'Apidae, "bees"' and row["license"] == "a\nb"


def test_an_image_of_two_species(tmp_path):
    occurrences = [*OCCURRENCES, ["14", "Animalia", "Apidae", "Bombus", "Bombus terrestris", "", "", "", ""]]
    path = write(tmp_path, occurrences=occurrences, media=[*IMAGES, ["14", "", "", "http://x/1.jpg", "", ""]])
    with pytest.raises(
        ValueError, match=r"a\.zip: http://x/1\.jpg has 'Apis mellifera' and 'Bombus terrestris', but an"
    ):
        read(path)
    rows, left_out = read(path, drop_several=True)
    assert [row["url"] for row in rows] == ["http://x/2.png", "http://x/4.jpg"] and left_out[
        "with several species"
    ] == 1


META = '<archive xmlns="http://rs.tdwg.org/dwc/text/">{}</archive>'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extension": "http://rs.gbif.org/terms/1.0/Identifier"}, "has no images: .* and has Identifier"),
        ({"occurrence.txt": None}, r"has no file occurrence\.txt: it may be incomplete"),
        ({"meta.xml": "<archive>"}, r"meta\.xml is not XML"),
        ({"meta.xml": META.format("")}, r"meta\.xml names no core"),
        ({"meta.xml": META.format("<core/>")}, r"meta\.xml describes a file without 'coreid'"),
        ({"meta.xml": '<!DOCTYPE a [<!ENTITY b "c">]>' + META.format("")}, "has a document type of its own"),
        ({"multimedia.txt": lines(MEDIA, [["11"]])}, r"multimedia\.txt cannot be read \("),
        ({"occurrence.txt": "gbifID\n11\n"}, r"meta\.xml names column \d of occurrence\.txt, whose first line has 1\."),
        ({"meta.xml": META.format(part("core", "o", "", CORE, delimiter=""))}, "a file without 'fieldsTerminatedBy'"),
        ({"occurrence.txt": "0" * 14_000_000}, r"occurrence\.txt is 14000000 bytes when unpacked, far more"),
    ],
)
def test_damaged_archives_are_one_sentence(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"a\.zip.*{message}"):
        read(write(tmp_path, **changes))


def test_half_a_zip(tmp_path):
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"a\.zip is not a whole \.zip file"):
        Archive(str(path))


def test_films_without_a_format_are_no_images():
    types = ["StillImage", "MovingImage", "Image", "http://purl.org/dc/dcmitype/MovingImage", "Sound", None]
    media = pa.table({"url": ["x"] * len(types), "type": types})
    report = Report(drop_several=False)
    assert darwin_core._still_images(media, report)["type"].to_pylist() == ["StillImage", "Image", None]
    assert report.left_out["that are sounds or films"] == 3
