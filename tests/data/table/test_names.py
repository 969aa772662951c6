"""Names of species: joined, rolled up, left out."""

from collections import Counter

import pytest

from deitlt_tf.data.table.names import HYBRID, WITHOUT, lineage


@pytest.mark.parametrize(
    ("cells", "species", "said"),
    [
        ({"genus": "Apis", "species": "mellifera"}, "Apis mellifera", {"joined": 1}),
        ({"genus": "Apis", "species": "Apis mellifera"}, "Apis mellifera", {}),
        ({"genus": "Apis", "species": "Apis mellifera ligustica"}, "Apis mellifera", {"rolled up": 1}),
        ({"genus": "Apis", "scientific_name": "Apis mellifera Linnaeus, 1758"}, "Apis mellifera", {"rolled up": 1}),
        ({"genus": "Apis", "epithet": "mellifera"}, "Apis mellifera", {"joined": 1}),
        ({"species": "Bombus (Pyrobombus) hypnorum", "genus": "Bombus"}, "Bombus hypnorum", {}),
        ({"species": "  Apis   mellifera "}, "Apis mellifera", {}),
        ({"species": "bee"}, "bee", {}),
        ({"genus": "Apis", "species": None, "scientific_name": "Apis mellifera"}, "Apis mellifera", {}),
    ],
)
def test_species_have_two_words(cells, species, said):
    counted = Counter()
    assert lineage(cells, rank="species", said=counted)[-1] == species
    assert counted == said


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"genus": "Anas", "species": "platyrhynchos \u00d7 acuta"}, HYBRID),
        ({"genus": "Mentha", "species": "x piperita"}, HYBRID),
        ({"genus": "\u00d7Cuprocyparis", "species": "leylandii"}, HYBRID),
        ({"genus": "Mentha", "scientific_name": "Mentha x piperita", "species": "piperita"}, HYBRID),
        ({"genus": "Acer", "species": None}, WITHOUT),
        ({"genus": "Acer", "species": ""}, WITHOUT),
        ({"genus": None, "species": "rubrum"}, WITHOUT),
        ({"genus": "Acer", "species": "sp."}, WITHOUT),
        ({"genus": "Lycosa", "species": "Lycosa cf. tarantula"}, WITHOUT),
        ({"genus": "Parus", "scientific_name": "Parus Linnaeus, 1758"}, WITHOUT),
        ({"genus": "Parus", "scientific_name": "Parus"}, WITHOUT),
    ],
)
def test_rows_without_a_species(cells, reason):
    assert lineage(cells, rank="species") == reason


def test_a_word_with_an_x_in_it_is_no_hybrid():
    assert lineage({"genus": "Xylocopa", "species": "xara"}, rank="species")[-1] == "Xylocopa xara"


def test_lineages_end_at_the_rank_and_have_holes():
    cells = {
        "kingdom": "Animalia",
        "phylum": None,
        "class": "Insecta",
        "order": "",
        "family": "Apidae",
        "genus": "Apis",
    }
    assert lineage(cells, rank="family") == ("Animalia", None, "Insecta", None, "Apidae")
    assert lineage(cells, rank="order") == WITHOUT
    assert lineage({**cells, "species": "sp."}, rank="genus")[-1] == "Apis"


def test_another_column_is_a_class_by_itself():
    assert lineage({"label": " red fox "}, rank="label") == ("red fox",)
    assert lineage({"label": "Salix x"}, rank="label") == ("Salix x",)
    assert lineage({"label": None}, rank="label") == WITHOUT
