"""Names of columns, as the sources of tables write them."""

import pytest

from deitlt_tf.data.table.columns import RANKS, near, recognise

BIOTROVE = ["photo_id", "scientificName", *RANKS, "common_name", "photo_url"]
TREE_OF_LIFE = ["uuid", "source_url", *RANKS, "scientific_name", "common", "basisOfRecord", "img_type", "source_id"]
GBIF = [
    *("gbifID", "identifier", "kingdom", "phylum", "class", "order", "family", "genus", "species", "scientificName"),
    *("specificEpithet", "eventDate", "decimalLatitude", "decimalLongitude", "license", "rightsHolder", "recordedBy"),
]
OPEN_DATA = ["photo_id", "observation_uuid", "observer_id", "latitude", "longitude", "observed_on", "license", "genus"]


@pytest.mark.parametrize(
    ("names", "roles"),
    [
        (BIOTROVE, {"id": "photo_id", "url": "photo_url", "scientific_name": "scientificName", "class": "class"}),
        (TREE_OF_LIFE, {"id": "uuid", "url": "source_url", "observation": "source_id", "common_name": "common"}),
        (GBIF, {"observation": "gbifID", "url": "identifier", "day": "eventDate", "creator": "recordedBy"}),
        (GBIF, {"latitude": "decimalLatitude", "epithet": "specificEpithet", "rights_holder": "rightsHolder"}),
        (OPEN_DATA, {"observation": "observation_uuid", "creator": "observer_id", "day": "observed_on"}),
        (["file_name", "location", "seq_id"], {"path": "file_name", "camera": "location", "observation": "seq_id"}),
        (["dwc:decimalLatitude", "Photo ID", "Genus"], {"latitude": "dwc:decimalLatitude", "id": "Photo ID"}),
    ],
)
def test_known_names(names, roles):
    assert recognise(names).items() >= roles.items()


def test_the_first_of_two_names_counts_and_unknown_ones_mean_nothing():
    found = recognise(["uuid", "photo_id", "observation_id", "observation_uuid", "remarks"])
    assert found == {"id": "photo_id", "observation": "observation_uuid"}


def test_near_names():
    assert near("faimly", ["family", "genus"]) == "did you mean family?"
    assert near("xyz", ["family", "genus"]) == "its columns are family, genus."
    assert near("x", [f"column{i}" for i in range(30)]).endswith("column19, ...")
