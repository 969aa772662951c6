"""Taxonomies in CSV and TSV files: both layouts, in any order of rows; each mistake is one sentence with its row."""

import random

import pytest
from helpers.image_files import touch
from hypothesis import given, settings
from hypothesis import strategies as st

from deitlt_tf.data import sources
from deitlt_tf.data.sources.taxonomy_files import read
from deitlt_tf.data.sources.taxonomy_files import write as write_taxonomy
from deitlt_tf.data.taxonomy import from_lineages

COLUMNS = """species,genus,family
Passer domesticus,Passer,Passeridae
Parus major,Parus,Paridae
Passer montanus,Passer,Passeridae
Unknown bird,,Paridae
"""
TREE = """name,parent,rank
Passer domesticus,Passer,species
Passer,Passeridae,genus
Passeridae,,family
Passer montanus,Passer,species
Parus major,Parus,species
Unknown bird,Paridae,species
Parus,Paridae,genus
Paridae,,family
"""
CLASSES = ("Parus major", "Passer domesticus", "Passer montanus", "Unknown bird")


def write(folder, text: str, *, name: str = "birds.csv", encoding: str = "utf-8") -> str:
    (folder / name).write_bytes(text.encode(encoding))
    return str(folder / name)


@pytest.mark.parametrize("text", [COLUMNS, TREE], ids=["columns", "tree"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_both_layouts_give_one_taxonomy_in_any_order_of_rows(tmp_path, text, delimiter, encoding):
    header, *rows = text.splitlines()
    random.Random(0).shuffle(rows)
    text = "\r\n".join([header, "", *rows, ""]).replace(",", delimiter)
    taxonomy = read(write(tmp_path, text, encoding=encoding), CLASSES)
    assert taxonomy.ranks == ("species", "genus", "family") and taxonomy.class_names == CLASSES
    assert taxonomy.nodes[1:] == (("Parus", "Passer", "no genus (species Unknown bird)"), ("Paridae", "Passeridae"))
    assert taxonomy.ancestors.tolist() == [[0, 1, 2, 3], [0, 1, 1, 2], [0, 1, 1, 0]]


def test_quotes_are_those_of_csv_and_names_are_compared_without_blanks_in_one_unicode_form(tmp_path):
    text = 'class,kind\n"tern, ""common""", bird \ne\u0301toile,star\n'
    taxonomy = read(write(tmp_path, text), ('tern, "common"', "\xe9toile"))
    assert taxonomy.nodes == (('tern, "common"', "\xe9toile"), ("bird", "star"))


@pytest.mark.parametrize(
    "text",
    [
        "\n\nspecies;genus\n\na;G\n b ;H\n",
        "\ufeffspecies,genus\r\na,G\r\n\r\nb,H\r\n",
        '"species","genus"\n"a","G"\n"b","H"\n',
        "rank;note;name;parent\nspecies;;a;G\nspecies;x;b;H\ngenus;;G;\ngenus;;H;\n",
    ],
)
def test_blank_lines_marks_of_windows_and_other_columns_do_no_harm(tmp_path, text):
    taxonomy = read(write(tmp_path, text), ("a", "b"))
    assert (taxonomy.ranks, taxonomy.nodes) == (("species", "genus"), (("a", "b"), ("G", "H")))


def test_rows_of_other_classes_are_counted(tmp_path):
    for text, others in ((COLUMNS, 2), (TREE, 2)):
        notes: list[str] = []
        assert read(write(tmp_path, text), CLASSES[:2], note=notes.append).class_names == CLASSES[:2]
        assert notes == [
            f"{tmp_path}/birds.csv has {others} rows of classes that the data does not have; they are left out."
        ]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", 'b, "c"', "d;"]), st.sampled_from(["", "x\ty", "z"])), min_size=1, unique=True
    ),
    st.sampled_from(["s", "s,1", "s;1", "s\t1", 's"1;"']),
)
@settings(deadline=None, max_examples=20)
def test_a_written_taxonomy_reads_back(tmp_path_factory, rows, rank):
    taxonomy = from_lineages([(*row, "all") for row in rows], (rank, "g", "f"))
    if len({x for _, x in rows}) == 1 and rows[0][1] == "":
        return  # a rank without any name is refused
    file = str(tmp_path_factory.mktemp("written") / "t.csv")
    write_taxonomy(file, taxonomy)
    assert read(file, taxonomy.class_names).to_dict() == taxonomy.to_dict()


def test_a_genus_of_birds_and_one_of_plants_may_have_one_name(tmp_path):
    text = "s,genus,family,kingdom\na,Oenanthe,Muscicapidae,Animalia\nb,Oenanthe,Apiaceae,Plantae\n"
    assert read(write(tmp_path, text), "ab").nodes[1] == ("Oenanthe (Muscicapidae)", "Oenanthe (Apiaceae)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "birds.csv has no rows"),
        ("species,genus\n", "birds.csv has no rows"),
        ("species\na\nb\n", "birds.csv:1 has the one column 'species': the ranks are missing"),
        ("species|genus\na|G\nb|G\n", "birds.csv:1 has the one column 'species|genus'"),
        ("species,,family\na,G,F\nb,G,F\n", "birds.csv:1: column 2 has no name, which is that of its rank"),
        ("species,genus,genus\na,G,F\nb,G,F\n", "birds.csv:1: two columns have the name 'genus'"),
        ("species,genus\na,G\nb\n", "birds.csv:3 has 1 columns, but the first line has 2: species, genus"),
        ("species,genus\na,G\nb,G,F\n", "birds.csv:3 has 3 columns, but the first line has 2"),
        ('species,genus\na,"G\nb,G\n', "birds.csv:4 is not CSV: unexpected end of data"),
        ('species,genus\na,"G"H\nb,G\n', "birds.csv:2 is not CSV: ',' expected after '\"'"),
        ("species,genus\na,G\n,G\nb,G\n", "birds.csv:3 has no name in the column 'species'"),
        ("species,genus\na,G\nb,G\na,H\n", "birds.csv:2 and .*birds.csv:4 have the same class, 'a'"),
        ("species,genus\na,G\n", "birds.csv has no row for the class 'b' of the data"),
        ("species,genus\na,G\nB,G\n", "birds.csv has no row for the class 'b' of the data, but one for 'B'"),
        ('species,genus\na,"G\nH"\nb,G\n', r"birds.csv is not a taxonomy: a node of rank 'genus' has the name 'G\\nH'"),
        ("species,genus,family\na,G,\nb,H,\n", "no class of the data has a name in the column 'family'"),
        ("s,g,f\na,G,X\nb,G,Y\n", ":3: g 'G' has two parents at rank 'f', 'X' and 'Y'; the first is in .*:2"),
        ("s,genus,family\na,G,\nb,G,Y\n", "birds.csv:3: genus 'G' has two parents at rank 'family', no name and 'Y'"),
        ("s,genus,family,order\na,G,F,X\nb,H,F,Y\n", ":3: family 'F' has two parents at rank 'order', 'X' and 'Y'"),
        ("s,g,f,o\na,G,X,O\nb,G,Y,O\n", "birds.csv:3: g 'G' has two parents at rank 'f', 'X' and 'Y'"),
        ("name,parent,rank\na,G,species\nb,G,species\nG,,\n", "birds.csv:4 has no rank for 'G'"),
        ("name,parent,rank\na,G,species\n,G,species\nG,,genus\n", "birds.csv:3 has no name"),
        ("name,parent,rank\na,G,species\nb,H,species\nG,,genus\n", "birds.csv:3: 'H', the parent of 'b', has no row"),
        ("name,parent,rank\na,G,s\nG,,g\nH,,g\na,H,s\n", ":2 and .*:5 give 'a' two parents, 'G' and 'H'"),
        ("name,parent,rank\na,G,species\nG,,genus\na,G,species\n", ":2 and .*:4 have the same name, 'a'"),
        ("name,parent,rank\na,G,s\nG,F,g\nF,O,f\nO,G,o\n", ":3: 'G' is above itself, by the parents G -> F -> O -> G"),
        ("name,parent,rank\na,a,s\n", "birds.csv:2: 'a' is above itself, by the parents a -> a"),
        ("name,parent,rank\na,b,s\nb,,s\n", "birds.csv:2: 'a' and its parent 'b' have one rank, 's'"),
        ("name,parent,rank\na,G,s\nb,,g\nG,,g\n", ":3: all classes of the data need one rank, but 'a' is a s, 'b' a g"),
        ("name,parent,rank\na,,s\nb,,s\n", "birds.csv has no rank above 's': no class of the data has a parent"),
        ("name,parent,rank\na,G,s\nG,F,g\nF,,f\nb,X,s\nX,Y,f\nY,,g\n", "the ranks 'g' and 'f' stand above each other"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_with_file_and_row(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read(write(tmp_path, text), ("a", "b"))
    assert "\n" not in str(error.value) and "birds.csv" in str(error.value)


def test_folders_take_their_taxonomy_from_a_file(tmp_path):
    touch(tmp_path / "images", *(f"{split}/{name}/1.jpg" for split in ("train", "test") for name in CLASSES))
    file = write(tmp_path, COLUMNS)
    splits = sources.load("folder", data_dir=str(tmp_path / "images"), taxonomy_file=file)
    assert splits.taxonomy.class_names == splits.train.class_names == CLASSES
    assert sources.load("folder", data_dir=str(tmp_path / "images")).taxonomy is None
    with pytest.raises(FileNotFoundError, match=r"taxonomy_file=.*none\.csv: there is no such file"):
        sources.load("folder", data_dir=str(tmp_path / "images"), taxonomy_file=str(tmp_path / "none.csv"))
