"""The Flower app of a client: greet, train a round, measure, save the personal model.

Flower starts a new process for each message, and a node's memory ends with it. So everything that a client keeps lies
in its own folder, the --workdir of its flag file. The node's owner decides what runs: the recipe is that flag file, and
the server's must agree with it.

    flower-supernode --superlink=HOST:9092 --root-certificates=ca.crt \
      --node-config='name="north" flagfile="/srv/deitlt/node.cfg"'
"""

import json
from typing import Any

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from deitlt_tf.federated import messages, node, shared
from deitlt_tf.federated.node import Setting
from deitlt_tf.recipes import checks, command_line

app = ClientApp()


def setting_of(config: dict[str, Any]) -> Setting:
    """What the owner has set with --node-config. Raises ValueError that says what is missing."""
    name, flagfile = str(config.get("name", "")), str(config.get("flagfile", ""))
    images = str(config.get("images", "own"))
    if not name or not flagfile:
        raise ValueError('start the node with --node-config=\'name="NAME" flagfile="FILE"\'.')
    if images not in ("own", "divided"):
        raise ValueError(f"client {name}: images={images!r} in --node-config is unknown: own or divided.")
    recipe = command_line.recipe_of(["client", f"--flagfile={flagfile}"])
    if not recipe.run.workdir:
        raise ValueError(f"client {name}: {flagfile} has no --workdir, where the client keeps its own files.")
    checks.check_federated(recipe)
    return Setting(recipe, name, images == "divided")


def checked_setting(message: Message, context: Context) -> Setting:
    """The setting of this node, after its recipe was compared with the server's and TensorFlow was set up.

    Raises ValueError where the recipes differ.
    """
    from deitlt_tf.devices.strategy import prepare

    setting = setting_of(dict(context.node_config))
    theirs = json.loads(messages.config_of(message)["flags"])
    if sentence := node.differing(setting.recipe.shared_flags(), theirs, name=setting.name):
        raise ValueError(sentence)
    prepare(**setting.recipe.run.numerics())
    return setting


@app.query()
def greet(message: Message, context: Context) -> Message:
    """Name, classes and class counts. Nothing is trained, but a recipe or images that do not fit are noticed."""
    setting = checked_setting(message, context)
    with node.opened(setting) as client:
        return Message(messages.content(node.greeting(client.images)), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round: what is averaged goes back, the local head stays."""
    setting, config = checked_setting(message, context), messages.config_of(message)
    with node.opened(setting) as client:
        reply = client.train(shared_of(message, client), int(config["round"]), last=int(config["last"]))
    metrics = {messages.SIZE: reply.size, "loss": reply.loss}
    return Message(messages.content({"name": reply.name}, arrays=reply.arrays, metrics=metrics), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Hits of each class on the client's own images; after the last round also the personal model, which stays."""
    setting, config = checked_setting(message, context), messages.config_of(message)
    last, counts = int(config["last"]), np.array(config["global_counts"])
    with node.opened(setting) as client:
        state = shared_of(message, client)
        hits = node.hits(client, state, last=last, global_counts=counts, split=str(config["split"]))
        if config["save"]:
            client.save_personal(state, last=last, global_counts=counts)
    return Message(messages.content({"name": client.name, "hits": json.dumps(hits)}), reply_to=message)


def shared_of(message: Message, client: node.Client) -> shared.Shared:
    """What the server holds, from a message. Raises ValueError for arrays of another network."""
    expected = shared.shapes(client.recipe, client.network, num_classes=len(client.counts))
    record = message.content.array_records[messages.ARRAYS]
    return shared.of_arrays(messages.arrays_of(record, expected=expected, sender="the server"))
