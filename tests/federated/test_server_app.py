"""What a server's flag file can have wrong, and hits that cannot be read."""

import json

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")

from deitlt_tf.federated import server_app


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the server needs its flag file"),
        ("--eval_resize=0\n", "has no --workdir, where the server keeps the run"),
        ("--eval_resize=0\n--workdir=x\n--federated_method=local\n", "--federated_method=local needs no server"),
        ("--workdir=x\n--strategy=mirrored\n--eval_resize=0\n", "--strategy=mirrored has no use here"),
    ],
)
def test_what_a_server_cannot_run_is_one_sentence(tmp_path, text, message):
    config = {"flagfile": ""}
    if text is not None:
        config = {"flagfile": str(tmp_path / "server.cfg")}
        (tmp_path / "server.cfg").write_text(text)
    with pytest.raises(ValueError, match=message):
        server_app.recipe_of(config)


def test_hits_are_read_with_the_right_number_of_classes_and_nothing_else():
    told = {"hits": json.dumps({"personal": {"aux": [1, 2], "total": [3, 4]}, "generic": {}})}
    np.testing.assert_array_equal(server_app.hits_of(told, 2, "north")["personal"]["total"], [3, 4])
    assert server_app.hits_of({"hits": "{}"}, 2, "north") == {}
    other = ({"north": {}}, {"personal": {}}, {"personal": {"aux": [1, 2]}, "generic": {}})
    negative = {"personal": {"aux": [1, -2], "total": [3, 4]}, "generic": {}}
    for bad in (
        *map(json.dumps, (*other, negative)),
        "",
        "[1]",
        '{"a": 3}',
        '{"a": {"b": [1]}}',
        '{"a": {"b": ["x", "y"]}}',
        "[" * 20_000,
        "[" * 9_000,
    ):
        with pytest.raises(ValueError, match="client north reports hits that cannot be read"):
            server_app.hits_of({"hits": bad}, 2, "north")
