"""Import a PyTorch checkpoint into a workdir, and save a student as a state dict for timm."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from deitlt_tf.data import sources, storage
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.interop import class_order as orders
from deitlt_tf.interop import pretrained, torch_files, torch_weights
from deitlt_tf.interop.torch_weights import Network
from deitlt_tf.models import vit
from deitlt_tf.runs.files import replacing, write_json, write_text
from deitlt_tf.runs.models import load_model, same_classes, save_model

SORTED_DATA = ("IMAGENETLT", "INAT18")  # the official names of the data sets that it sorts by frequency


def save_for_timm(folder: Path, file: Path) -> None:
    """Save student.keras of a workdir as a plain state dict, which timm's distilled DeiT (or ViT) loads."""
    torch = torch_files.pytorch()
    student, _ = load_model(folder / "student.keras")
    state = {name: torch.from_numpy(np.array(value)) for name, value in torch_weights.to_torch(student).items()}
    with replacing(file) as temporary:
        torch.save(state, temporary)
    print(f"{file}: {len(state)} weights of {student.name}")


def import_checkpoint(
    path: Path,
    folder: Path,
    *,
    num_heads: int,
    stated: Mapping[str, dict[str, Any]],
    data: sources.Source | None,
    class_names_file: str,
    class_order: str,
    ldam_scale: float,
) -> Network:
    """Write the networks of a checkpoint to `folder`: .keras files, class_names.txt and a note in results.json.

    num_heads: attention heads of a ViT; 0: those of its width.
    stated: {"student", "teacher": keywords of `as_stated`}, what a person states about the network.
    data: the training images of the checkpoint, if known; they give the class names, or else `class_names_file` does.
    class_order: see `class_order_of`.
    ldam_scale: scale of the cosines of an LDAM teacher.
    Returns the recognised network. Raises ValueError where the file, a statement, the classes or the folder do not fit.
    """
    states, settings = pretrained.read_file(path)
    with naming_file(path):
        networks = {suffix: torch_weights.recognise(state, num_heads=num_heads) for suffix, state in states.items()}
    role = "teacher" if networks[""].teacher else "student"
    networks = {suffix: as_stated(network, path=path, **stated[role]) for suffix, network in networks.items()}
    network = networks[""]
    names = data.class_names if data else read_names(class_names_file)
    if names:
        same_classes(None, names, path=path, num_outputs=network.num_classes)
    counts = sources.class_counts(data.labels, len(data.class_names)) if data else None
    order, origin = class_order_of(class_order, settings, network, counts, path=path)
    lines = "".join(f"{name}\n" for name in names or (f"class {c}" for c in range(network.num_classes)))
    files = {f"{role}{suffix}.keras": network for suffix, network in networks.items()}
    results = earlier_import(folder, files=list(files), class_names=lines)

    with naming_file(path):
        models = {name: torch_weights.build(torch_weights.in_order(network, order)) for name, network in files.items()}
    for name, model in models.items():
        pretrained.scale_cosines(model, ldam=ldam_scale)
        save(model, folder / name, class_names=names)
    note = {"from": str(path), "network": network.kind, "classes": network.num_classes, "class_order": origin}
    results["imported"] = results.get("imported", {}) | dict.fromkeys(files, note)
    write_json(folder / "results.json", results | training_counts(counts))
    write_text(folder / "class_names.txt", lines)
    print(f"{path}: {network.kind}, {network.num_classes} classes; their order: {origin}")
    print(f"{folder}: {', '.join(files)}")
    return network


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """A ValueError inside the block gets the name of the file in front."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# ---- the classes -----------------------------------------------------------------------------------------------------


def training_data(name: str, **source: Any) -> sources.Source | None:
    """The training split of the data settings, None where they name no data. The images need not exist.

    name, source: as for `data.sources.load`.
    """
    train_list = source["train_list"]
    if not train_list and name == "folder" and not source["data_dir"]:
        return None
    source |= {"test_list": source["test_list"] or source["val_list"] or train_list, "val_list": ""}
    if train_list and name != "inat":  # which has files of its own kind
        name = "list"
    return sources.load(name, **source, complain=lambda mistake: None).train


def read_names(path: str) -> tuple[str, ...] | None:
    """The class names of a file, one a line; None where `path` is empty. Raises FileNotFoundError."""
    if not path:
        return None
    if not storage.is_file(path):
        raise FileNotFoundError(f"class_names_file={path}: there is no such file.")
    return tuple(line.strip() for line in storage.read_text(path).strip().split("\n"))


def class_order_of(
    class_order: str, settings: dict, network: Network, counts: np.ndarray | None, *, path: Path
) -> tuple[np.ndarray | None, str]:
    """The order of the head's units (None: unchanged), and its origin in words.

    class_order: "official" (sorted by frequency), "as_is" (unchanged), a file, or "": what the checkpoint says.
    settings: of the training that wrote the checkpoint. counts: [C], training images of each class, if known.
    Raises ValueError where the classes are known to be sorted by frequency but their order is not known.
    """
    classes = network.num_classes
    if class_order == "official":
        if counts is None:
            raise ValueError("class_order=official sorts by training images: name them, e.g. with `train_list`.")
        return orders.official(counts), "official, from the training images"
    if class_order and class_order != "as_is":
        return orders.read(Path(class_order), num_classes=classes), class_order
    if not class_order and (order := settings.get("class_map")) is not None:
        source = f"class_map in {path}"
        return orders.checked(order, num_classes=classes, source=source), source
    sorted_data = settings.get("data_set") in SORTED_DATA
    if not class_order and (sorted_data or (network.long_tailed and classes in torch_weights.SORTED_BY_FREQUENCY)):
        raise ValueError(
            f"the {classes} classes of {path} are sorted by frequency, in an order that it does not hold: "
            "give class_order=official with `train_list`, or class_order=FILE, or class_order=as_is."
        )
    return None, "as in the checkpoint"


# ---- the network and its workdir -------------------------------------------------------------------------------------


def as_stated(
    network: Network,
    *,
    path: Path,
    model: str = "",
    embed_dim: int = 0,
    depth: int = 0,
    image_size: int = 0,
    activation: str = "",
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
) -> Network:
    """The network with the pixel statistics, a ViT's activation and a CNN's image size, that a person states.
    path: of the checkpoint, for messages. mean, std: of the training pixels, for pixels in 0..1; empty: unchanged.
    image_size: pixels; 0: unchanged. A ViT knows its own.
    Raises ValueError where model, embed_dim or depth describe another architecture.
    """
    is_other = network.name != model
    if not network.teacher:
        width, blocks, _ = vit.SIZES.get(model.partition("_")[2], (0, 0, 0))
        own_width, own_blocks, _ = vit.SIZES[network.name.partition("_")[2]]
        own = network.options.get("embed_dim", own_width), network.options.get("depth", own_blocks)
        is_other = (embed_dim or width, depth or blocks) != own
    if model and is_other:
        argument = "teacher_model" if network.teacher else "model"
        raise ValueError(f"{path} holds {network.kind}, but `{argument}` is {model}.")
    changes: dict[str, Any] = {name: value for name, value in {"mean": mean, "std": std}.items() if value}
    if network.teacher and image_size:
        changes["options"] = network.options | {"image_size": image_size}
    if activation:
        changes["options"] = network.options | {"activation": activation}
    return dataclasses.replace(network, **changes)


def earlier_import(folder: Path, *, files: list[str], class_names: str) -> dict:
    """results.json of an earlier import into the folder; empty for a new folder.

    files: that this import writes. class_names: lines of class_names.txt.
    Raises ValueError where the folder is a run, has one of `files` from elsewhere, or has other classes.
    """
    advice = "choose another `workdir`."
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    occupied = [name for name in ("flags.cfg", *files) if (folder / name).exists()]
    if occupied and "imported" not in results:
        raise ValueError(f"{folder} holds a run ({occupied[0]}): {advice}")
    if results and (folder / "class_names.txt").read_text() != class_names:
        raise ValueError(f"{folder} holds a network on other classes, see its class_names.txt: {advice}")
    return results


def training_counts(class_counts: np.ndarray | None) -> dict:
    """The entries of results.json about the training images, as `train` writes them; empty where they are unknown."""
    if class_counts is None:
        return {}
    groups = {convention: describe_groups(class_counts, convention) for convention in ("shots", "paper")}
    return {"groups": groups, "class_counts": class_counts.tolist()}


def save(model: keras.Model, path: Path, *, class_names: tuple[str, ...] | None) -> None:
    """Write a model to a .keras file, with its class names inside where they are known."""
    if class_names:
        save_model(model, path, class_names=class_names)
        return
    with replacing(path) as temporary:
        model.save(temporary)
