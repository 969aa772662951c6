"""What a node's owner can set wrong."""

import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'deitlt_tf[federated]'")

from deitlt_tf.federated import client_app


def test_a_node_is_its_name_and_its_flag_file(tmp_path):
    flags = tmp_path / "node.cfg"
    flags.write_text(f"--workdir={tmp_path}/own\n--eval_resize=0\n--data_dir={tmp_path}\n")
    setting = client_app.setting_of({"name": "north", "flagfile": str(flags)})
    assert (setting.name, setting.divided, setting.recipe.run.folder) == ("north", False, tmp_path / "own")
    assert client_app.setting_of({"name": "n", "flagfile": str(flags), "images": "divided"}).divided


@pytest.mark.parametrize(
    ("config", "text", "message"),
    [
        ({}, "", "start the node with --node-config="),
        ({"name": "north"}, "", "start the node with --node-config="),
        ({"name": "north", "flagfile": "F", "images": "some"}, "", "images='some' in --node-config is unknown"),
        ({"name": "north", "flagfile": "F"}, "--eval_resize=0\n", "has no --workdir, where the client keeps"),
        ({"name": "north", "flagfile": "F"}, "--workdir=x\n", "differ: evaluate and report"),
    ],
)
def test_what_is_set_wrong_is_one_sentence(tmp_path, config, text, message):
    flags = tmp_path / "node.cfg"
    flags.write_text(text)
    if "flagfile" in config:
        config = config | {"flagfile": str(flags)}
    with pytest.raises(ValueError, match=message):
        client_app.setting_of(config)
