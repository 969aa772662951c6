"""A taxonomy: lineages become one tree, names are unique, holes are nodes of their own, and JSON gives it back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data.dataset import Source, Splits
from deitlt_tf.data.taxonomy import Taxonomy, from_dict, from_lineages

RANKS = ("species", "genus", "family")
names = st.sampled_from(["a", "b", "c"])
lineages = st.lists(
    st.tuples(names, st.none() | names, st.sampled_from(["", "a", "b"])), min_size=1, max_size=12, unique=True
)


def test_lineages_become_nodes_and_ancestors():
    birds = from_lineages(
        [("Passer domesticus", "Passer", "Passeridae"), ("Parus major", "Parus", "Paridae"),
         ("Passer montanus", "Passer", "Passeridae")], RANKS,
    )  # fmt: skip
    assert birds.class_names == ("Passer domesticus", "Parus major", "Passer montanus")
    assert birds.nodes[1:] == (("Passer", "Parus"), ("Passeridae", "Paridae"))
    assert birds.ancestors.tolist() == [[0, 1, 2], [0, 1, 0], [0, 1, 0]] and birds.ancestors.dtype == np.int32
    assert birds.parents(0).tolist() == [0, 1, 0] and birds.sizes(2).tolist() == [2, 1]
    assert birds.number_of_names() == {"species": 3, "genus": 2, "family": 2}
    with pytest.raises(ValueError, match="read-only"):
        birds.ancestors[0, 0] = 1


def test_a_key_is_the_lineage_and_names_that_would_read_alike_get_their_parents():
    taxonomy = from_lineages(
        [("viridis", "Oenanthe", "Apiaceae"), ("viridis", "Oenanthe", "Muscicapidae"), ("alba", "Oenanthe", None)],
        RANKS,
    )
    assert taxonomy.class_names == ("viridis (Oenanthe, Apiaceae)", "viridis (Oenanthe, Muscicapidae)", "alba")
    assert taxonomy.nodes[1] == ("Oenanthe (Apiaceae)", "Oenanthe (Muscicapidae)", "Oenanthe (no family)")


def test_a_hole_is_a_node_of_what_is_below_it_alone():
    taxonomy = from_lineages(
        [("A a", None, "F"), ("A b", "", "F"), ("B a", "B", ""), ("B b", "B", None), ("C", None, None)], RANKS
    )
    assert taxonomy.nodes[1] == ("no genus (species A a)", "no genus (species A b)", "B", "no genus (species C)")
    assert taxonomy.nodes[2] == ("F", "no family (genus B)", "no family (species C)")
    assert taxonomy.ancestors.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 2, 3], [0, 0, 1, 1, 2]]
    assert taxonomy.number_of_names() == {"species": 5, "genus": 1, "family": 1}


@given(lineages)
@settings(deadline=None, max_examples=40)
def test_every_set_of_lineages_is_a_tree_that_json_gives_back(rows):
    """Two classes share a node exactly if their lineages agree from there up, and a known name below or at it."""
    taxonomy = from_lineages(rows, RANKS)
    for rank, row in enumerate(taxonomy.ancestors):
        for a, b in np.ndindex(len(rows), len(rows)):
            starts = [next(f for f in range(rank, -1, -1) if x[f]) for x in (rows[a], rows[b])]
            keys = [tuple(name or None for name in x[f:]) for x, f in zip((rows[a], rows[b]), starts, strict=True)]
            assert (row[a] == row[b]) == (keys[0] == keys[1])
    again = from_dict(json.loads(json.dumps(taxonomy.to_dict())), place="model.keras")
    assert (again.ranks, again.nodes, again.holes) == (taxonomy.ranks, taxonomy.nodes, taxonomy.holes)
    np.testing.assert_array_equal(again.ancestors, taxonomy.ancestors)


@pytest.mark.parametrize(
    ("rows", "ranks", "message"),
    [
        ([], RANKS, "at least one class"),
        ([("a", "b", "c")], (), "a taxonomy needs ranks"),
        ([("a", "b")], ("species", "ge\nnus"), r"a rank has the name 'ge\\nnus': a name is one line of text"),
        ([("a", "b")], ("species", "species"), "two ranks have the name 'species'"),
        ([("a", "b", "c"), ("a", "b")], RANKS, "f.csv:3 has 2 names, but there are 3 ranks: species, genus, family"),
        ([("a", "b", "c"), (None, "b", "c")], RANKS, "f.csv:3 has no name at the rank 'species'"),
        ([("a", "b", "c"), ("a", "b", "c")], RANKS, "f.csv:2 and f.csv:3 are one class, 'a'"),
    ],
)
def test_lineages_that_are_refused(rows, ranks, message):
    with pytest.raises(ValueError, match=message):
        from_lineages(rows, ranks, places=[f"f.csv:{row}" for row in range(2, 2 + len(rows))])


@pytest.mark.parametrize(
    ("nodes", "ancestors", "message"),
    [
        ((("a", "b"), ("F",)), [[0, 1]], "ancestors must be int32"),
        ((("a", "b"), ("F", "G")), [[0, 1], [0, 0]], "rank 'genus' has 2 nodes, and each of them needs a class"),
        ((("a", "b"), ("F",)), [[0, 1], [0, 1]], "rank 'genus' has 1 nodes"),
        ((("a", "a"), ("F",)), [[0, 1], [0, 0]], "rank 'species' has two nodes of one name, 'a'"),
        ((("a", "b"), ("F",)), [[1, 0], [0, 0]], "must be the classes in their order"),
        ((("a", "b"), ("F\nG",)), [[0, 1], [0, 0]], r"a node of rank 'genus' has the name 'F\\nG': a name is one line"),
        ((("a", "b\udcff"), ("F",)), [[0, 1], [0, 0]], r"a node of rank 'species' has the name 'b\\udcff'"),
    ],
)
def test_what_is_no_tree_is_refused(nodes, ancestors, message):
    with pytest.raises(ValueError, match=message):
        Taxonomy(("species", "genus"), nodes, np.array(ancestors, np.int32))


def test_a_node_has_one_parent():
    rows = np.array([[0, 1, 2], [0, 0, 1], [0, 1, 1]], np.int32)
    with pytest.raises(ValueError, match="genus 'F' has two parents at rank 'family'"):
        Taxonomy(RANKS, (("a", "b", "c"), ("F", "G"), ("X", "Y")), rows)


@pytest.mark.parametrize(
    "change",
    [
        {"ranks": 3}, {"ranks": ["species"]}, {"nodes": [["a", 7], ["F"]]}, {"nodes": []}, {"holes": None},
        {"parents": [[0, 5]]}, {"parents": [[0.5, 0]]}, {"parents": [[0, -1]]}, {"parents": [[0, 10**30]]},
        {"holes": [["x"], []]},
    ],
)  # fmt: skip
def test_a_damaged_taxonomy_is_one_sentence(change):
    value = {"ranks": ["species", "genus"], "nodes": [["a", "b"], ["F"]], "parents": [[0, 0]], "holes": [[], []]}
    assert from_dict(value, place="x").nodes[1] == ("F",)
    for broken in (value | change, [value], None):
        with pytest.raises(ValueError, match=r"model\.keras does not hold a taxonomy that can be read"):
            from_dict(broken, place="model.keras")


def test_splits_have_a_taxonomy_of_their_own_classes():
    part = Source(np.zeros((2, 4, 4, 3), np.uint8), np.array([0, 1], np.int32), ("a", "b"))
    taxonomy = from_lineages([("a", "F"), ("b", "F")], RANKS[:2])
    splits = Splits(part, None, part, taxonomy)
    assert splits.taxonomy is taxonomy and list(splits.parts) == ["train", "test"]
    other_order = from_lineages([("b", "F"), ("a", "F")], RANKS[:2])
    with pytest.raises(ValueError, match="has the classes in another order than the data: class 0 is 'b' there, 'a'"):
        Splits(part, None, part, other_order)
    with pytest.raises(ValueError, match="other classes than the data: class 1 is 'c' there, 'b' here"):
        Splits(part, None, part, from_lineages([("a", "F"), ("c", "F")], RANKS[:2]))
    with pytest.raises(ValueError, match="a taxonomy of 1 classes, the data has 2"):
        Splits(part, None, part, from_lineages([("a", "F")], RANKS[:2]))
