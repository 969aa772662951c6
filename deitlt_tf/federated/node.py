"""One client on its own machine: what its owner has set, its images and its folder, opened anew for each message."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deitlt_tf.federated import images, networks
from deitlt_tf.federated.client import Client, make_update
from deitlt_tf.federated.images import Images
from deitlt_tf.federated.shared import Shared
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.runs.data import load_splits
from deitlt_tf.runs.lock import locked

WAIT = 120  # seconds for the process of an earlier message to leave the folder
METHODS = ("fedavg", "fedavg_rescaled", "fedavg_prior", "fedprox", "fedloge")  # local and central need no server


class Setting(NamedTuple):
    """What the owner of a node has set. name: of the client. divided: whether it takes its share of one data set."""

    recipe: Recipe
    name: str
    divided: bool


def differing(ours: Mapping[str, str], theirs: Mapping[str, str], *, name: str) -> str:
    """A sentence on the first flags in which a client and the server differ; "" where they agree.

    ours, theirs: `Recipe.shared_flags` of the client and of the server. name: of the client.
    """
    names = sorted(flag for flag in ours.keys() | theirs.keys() if ours.get(flag) != theirs.get(flag))
    first = ", ".join(f"`{flag}` is {theirs.get(flag)!r} there and {ours.get(flag)!r} here" for flag in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"client {name} has another recipe than the server: {first}{more}." if names else ""


def other_classes(first: str, ours: tuple[str, ...], second: str, theirs: tuple[str, ...]) -> str:
    """A sentence on the first class in which two clients differ; "" where their lists are equal."""
    if ours == theirs:
        return ""
    advice = "Agree on one list of classes (`class_names_file`)."
    if len(ours) != len(theirs):
        return f"client {second} has {len(theirs)} classes and client {first} has {len(ours)}. {advice}"
    i = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
    both = f"class {i} is {theirs[i]!r} there, {ours[i]!r} here"
    return f"client {second} has other classes than client {first}: {both}. {advice}"


def load(setting: Setting) -> Images:
    """The images of a node: its own folder, or its share of a data set that all nodes have.

    Raises ValueError for a name that no share has.
    """
    recipe, folder = setting.recipe, setting.recipe.run.folder
    if not setting.divided:
        report = folder / "skipped_images.txt"
        return images.of_folder(recipe.data.data_dir, recipe, report=report, name=setting.name)
    shares = {
        client.name: client for client in images.divided(load_splits(**recipe.data.loading(), folder=folder), recipe)
    }
    if setting.name not in shares:
        raise ValueError(f"client {setting.name} has no share: the shares are {', '.join(shares)}.")
    return shares[setting.name]


@contextlib.contextmanager
def free(folder: Path, *, wait: float = WAIT) -> Iterator[None]:
    """Holds `folder`, as `locked` does, and waits for a process that still has it.

    When Flower takes a slow process for lost, that process needs a while to notice and to end.
    wait: seconds, after which it raises what `locked` raises.
    """
    end = time.monotonic() + wait
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(folder))
                break
            except ValueError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)
        yield


@contextlib.contextmanager
def opened(setting: Setting) -> Iterator[Client]:
    """The client of a node, whose folder is locked and claimed. Raises what `Client` and `locked` raise."""
    recipe = setting.recipe
    with free(recipe.run.folder):
        own = load(setting)
        network = networks.build(recipe, num_classes=len(own.class_names))
        update = make_update(recipe, network, num_classes=len(own.class_names))
        yield Client(own, recipe=recipe, network=network, update=update, folder=recipe.run.folder)


def greeting(own: Images) -> dict[str, Any]:
    """What a client tells before the first round: its name, its classes and the images of each."""
    return {"name": own.name, "class_names": list(own.class_names), "counts": [int(n) for n in own.counts]}


def hits(client: Client, shared: Shared, *, last: int, global_counts: np.ndarray, split: str) -> dict[str, Any]:
    """The hits of a client as lists: {"generic", "personal": {reading: [C]}}; {} where it has no such images.

    Clients on other machines have no taxonomy: it would make the message as many times larger as there are ranks.
    """
    arrays = client.hits(shared, last=last, global_counts=global_counts, split=split)
    return {part: {row: x.tolist() for row, x in rows.items()} for part, rows in arrays.items()}
