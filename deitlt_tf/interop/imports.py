"""A PyTorch checkpoint as a workdir, and a student as a timm state dict."""

import contextlib
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes.flags import FLAGS, OURS

SORTED_DATA = ("IMAGENETLT", "INAT18")  # values of the official --data-set


def export(flags: SimpleNamespace) -> None:
    """--to_torch: student.keras as a plain state dict that timm's distilled DeiT (or ViT) loads."""
    import numpy as np

    from deitlt_tf.interop import torch_files, torch_weights
    from deitlt_tf.runs.files import replacing
    from deitlt_tf.runs.models import load_model

    torch = torch_files.pytorch()
    student, _ = load_model(Path(flags.workdir) / "student.keras")
    state = {name: torch.from_numpy(np.array(value)) for name, value in torch_weights.to_torch(student).items()}
    with replacing(Path(flags.to_torch)) as temporary:
        torch.save(state, temporary)
    print(f"{flags.to_torch}: {len(state)} weights of {student.name}")


def bring(flags: SimpleNamespace) -> None:
    """--checkpoint: its networks as .keras files in the workdir, with flags, class names and a note in results.json."""
    from deitlt_tf.data import sources
    from deitlt_tf.interop import pretrained, torch_files, torch_weights
    from deitlt_tf.runs.files import write_json, write_text
    from deitlt_tf.runs.models import same_classes

    folder, path = Path(flags.workdir), Path(flags.checkpoint)
    given = {name for name in OURS if FLAGS[name].present}
    states, settings = torch_files.read(path)
    with naming(path):
        networks = {key: torch_weights.recognise(state, num_heads=flags.num_heads) for key, state in states.items()}
    networks = {key: as_asked(network, flags, given) for key, network in networks.items()}
    network = networks[""]
    data = training_data(flags)
    names = data.class_names if data else read_names(flags)
    if names:
        same_classes(None, names, path=path, num_outputs=network.num_classes)
    counts = sources.class_counts(data.labels, len(names)) if data else None
    order, how = class_order_of(flags, settings, network, counts)
    lines = "".join(f"{name}\n" for name in names or (f"class {c}" for c in range(network.num_classes)))
    role = "teacher" if network.teacher else "student"
    files = {f"{role}{key}.keras": network for key, network in networks.items()}
    results, old = earlier_import(folder, files=list(files), class_names=lines)

    with naming(path):
        models = {name: torch_weights.build(torch_weights.in_order(network, order)) for name, network in files.items()}
    for name, model in models.items():
        pretrained.scale_cosines(model, ldam=flags.teacher_scale)
        save(model, folder / name, class_names=names)
    note = {"from": str(path), "network": network.kind, "classes": network.num_classes, "class_order": how}
    results["imported"] = results.get("imported", {}) | dict.fromkeys(files, note)
    write_json(folder / "results.json", results | counted(counts))
    write_text(folder / "class_names.txt", lines)
    kept = {name: value for name, value in vars(flags).items() if name in given or name not in old}
    write_text(folder / "flags.cfg", command_line.as_flagfile(old | kept | as_flags(network, flags, given)))
    print(f"{path}: {network.kind}, {network.num_classes} classes; their order: {how}")
    print(f"{folder}: {', '.join(files)}, flags.cfg, class_names.txt, results.json")


@contextlib.contextmanager
def naming(path: Path):
    """Errors of recognising and building, with the file's name before them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def training_data(flags: SimpleNamespace):
    """The training split that the data flags name, None where they name none. Missing images are no mistake here."""
    from deitlt_tf.data import sources

    if not flags.train_list and flags.data == "folder" and not flags.data_dir:
        return None
    return sources.load(
        "list" if flags.train_list else flags.data,
        data_dir=flags.data_dir,
        train_list=flags.train_list,
        test_list=flags.test_list or flags.val_list or flags.train_list,
        image_root=flags.image_root,
        class_names_file=flags.class_names_file,
        test_fraction=flags.test_fraction,
        split_seed=flags.split_seed,
        val_fraction=flags.val_fraction,
        imbalance=flags.imbalance,
        imbalance_type=flags.imbalance_type,
        imbalance_seed=flags.imbalance_seed,
        download=flags.download,
        complain=lambda mistake: None,
    ).train


def read_names(flags: SimpleNamespace) -> tuple[str, ...] | None:
    """--class_names_file, where there are no data flags."""
    from deitlt_tf.data import storage

    path = flags.class_names_file
    if not path:
        return None
    if not storage.is_file(path):
        raise FileNotFoundError(f"--class_names_file={path}: there is no such file.")
    return tuple(line.strip() for line in storage.read_text(path).strip().split("\n"))


def class_order_of(flags: SimpleNamespace, settings: dict, network, counts) -> tuple[object, str]:
    """The order of the head's units (None: as they are), and where it is from.

    Raises ValueError where the classes are known to be sorted by frequency and the order itself is nowhere.
    """
    from deitlt_tf.interop import class_order, torch_weights

    asked, classes = flags.class_order, network.num_classes
    if asked == "official":
        if counts is None:
            raise ValueError("--class_order=official sorts by training images: name them, e.g. with --train_list.")
        return class_order.official(counts), "official, from the training images"
    if asked and asked != "as_is":
        return class_order.read(Path(asked), num_classes=classes), asked
    if not asked and (order := settings.get("class_map")) is not None:
        source = f"class_map in {flags.checkpoint}"
        return class_order.checked(order, num_classes=classes, source=source), source
    sorted_data = settings.get("data_set") in SORTED_DATA
    if not asked and (sorted_data or (network.long_tailed and classes in torch_weights.SORTED_BY_FREQUENCY)):
        raise ValueError(
            f"the {classes} classes of {flags.checkpoint} are sorted by frequency, in an order that it does not hold: "
            "give --class_order=official with --train_list, or --class_order=FILE, or --class_order=as_is."
        )
    return None, "as in the checkpoint"


def as_asked(network, flags: SimpleNamespace, given: set[str]):
    """The network with the statistics and, of a ResNet, the image size that `given` flags state instead of its own.

    Raises ValueError where they ask for another architecture.
    """
    from deitlt_tf.models import vit
    from deitlt_tf.recipes.recipe import floats

    prefix = "teacher_" if network.teacher else ""
    asked, is_other = f"{prefix}model", network.name != flags.teacher_model
    if not network.teacher:
        dim, depth, _ = vit.SIZES.get(flags.model.partition("_")[2], (0, 0, 0))
        wanted = flags.embed_dim or dim, flags.depth or depth
        dim, depth, _ = vit.SIZES[network.name.partition("_")[2]]
        is_other = wanted != (network.options.get("embed_dim", dim), network.options.get("depth", depth))
    if asked in given and is_other:
        raise ValueError(f"{flags.checkpoint} holds {network.kind}, but --{asked} is {getattr(flags, asked)}.")
    changes = {
        name: floats(getattr(flags, prefix + name), flag=prefix + name)
        for name in ("mean", "std")
        if prefix + name in given
    }
    if network.teacher and "teacher_image_size" in given:
        changes["options"] = network.options | {"image_size": flags.teacher_image_size}
    return dataclasses.replace(network, **changes)


def as_flags(network, flags: SimpleNamespace, given: set[str]) -> dict[str, object]:
    """What flags.cfg has to say of an imported network and its data."""
    sizes, prefix = network.options, "teacher_" if network.teacher else ""
    found = {f"{prefix}mean": list(map(str, network.mean)), f"{prefix}std": list(map(str, network.std))}
    found |= {"data": "list"} if flags.train_list else {}
    if not network.teacher:
        found |= {name: sizes.get(name, 0) for name in ("image_size", "patch_size", "depth", "embed_dim", "num_heads")}
        method = "vit" if network.name.startswith("vit_") else flags.method if "method" in given else "deit_lt"
        return found | {"model": network.name.replace("vit_", "deit_"), "method": method}
    small = sizes["image_size"] <= 64
    view = {} if "teacher_eval_resize" in given else {"teacher_eval_resize": 0 if small else 256}
    found |= {"teacher_model": network.name, "teacher_classifier": sizes["classifier"]}
    return found | view | {"teacher_image_size": sizes["image_size"]}


def earlier_import(folder: Path, *, files: list[str], class_names: str) -> tuple[dict, dict]:
    """results.json and the flags of an earlier import into the folder, empty ones if it is new.

    Raises ValueError if the folder is a run, has one of `files` from elsewhere, or other classes.
    """
    advice = "choose another --workdir."
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    occupied = [name for name in ("flags.cfg", *files) if (folder / name).exists()]
    if occupied and "imported" not in results:
        raise ValueError(f"{folder} holds a run ({occupied[0]}): {advice}")
    if not results:
        return {}, {}
    if (folder / "class_names.txt").read_text() != class_names:
        raise ValueError(f"{folder} holds a network on other classes, see its class_names.txt: {advice}")
    return results, vars(command_line.parse(["", *command_line.read_flagfile(folder / "flags.cfg")]))


def counted(class_counts) -> dict:
    """What results.json says of the training images, as after a run."""
    from deitlt_tf.evaluation import tables

    if class_counts is None:
        return {}
    groups = {convention: tables.describe_groups(class_counts, convention) for convention in ("shots", "paper")}
    return {"groups": groups, "class_counts": class_counts.tolist()}


def save(model, path: Path, *, class_names: tuple[str, ...] | None) -> None:
    """The .keras file, with class names inside where they are known."""
    from deitlt_tf.runs.files import replacing
    from deitlt_tf.runs.models import save_model

    if class_names:
        save_model(model, path, class_names=class_names)
        return
    with replacing(path) as temporary:
        model.save(temporary)
