"""Bring weights over from PyTorch, into a workdir that evaluate, report and export take; and back (extra [torch]).

    python -m deitlt_tf.import_torch --checkpoint=student.pth --workdir=runs/official --flagfile=configs/cifar10_lt.cfg
    python -m deitlt_tf.import_torch --checkpoint=teacher.pth.tar --workdir=runs/official
    python -m deitlt_tf.import_torch --workdir=runs/first --to_torch=student_timm.pth

What a file holds is recognised by its weights: DeiT-LT students, PaCo and LDAM teachers, DeiT and ViT of
facebookresearch/deit and timm, torchvision ResNets. A student and its teacher may share a workdir. The data flags name
the classes; images need not be there, and --train_list or --class_names_file alone will do. Code in a file never runs.
"""

import argparse
import contextlib
import dataclasses
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

from deitlt_tf import options

INSTALL = 'PyTorch is needed for this: python -m pip install "deitlt_tf[torch]".'
# Under which names the training codes of the field keep weights and their moving average.
WEIGHTS = {"": ("model", "state_dict"), "_ema": ("model_ema", "state_dict_ema")}
SORTED_DATA = ("IMAGENETLT", "INAT18")  # values of the official --data-set


def main(flags: SimpleNamespace) -> None:
    if not flags.workdir:
        raise ValueError("--workdir is missing: name the folder where the imported model is kept.")
    if not flags.to_torch and not flags.checkpoint:
        raise ValueError("--checkpoint is missing: name a PyTorch file (or, for the way back, --to_torch=FILE).")
    from deitlt_tf import devices

    devices.prepare(seed=flags.seed, precision=flags.precision, deterministic=flags.deterministic)
    (export if flags.to_torch else bring)(flags)


def export(flags: SimpleNamespace) -> None:
    """--to_torch: student.keras as a plain state dict that timm's distilled DeiT (or ViT) loads."""
    import numpy as np

    from deitlt_tf import official, workdir

    torch = pytorch()
    student, _ = workdir.load_model(Path(flags.workdir) / "student.keras")
    state = {name: torch.from_numpy(np.array(value)) for name, value in official.to_torch(student).items()}
    with workdir.replacing(Path(flags.to_torch)) as temporary:
        torch.save(state, temporary)
    print(f"{flags.to_torch}: {len(state)} weights of {student.name}")


def bring(flags: SimpleNamespace) -> None:
    """--checkpoint: its networks as .keras files in the workdir, with flags, class names and a note in results.json."""
    from deitlt_tf import official, workdir
    from deitlt_tf.data import sources

    folder, path = Path(flags.workdir), Path(flags.checkpoint)
    given = {name for name in options.OURS if options.FLAGS[name].present}
    states, settings = read(path)
    with naming(path):
        networks = {key: official.recognise(state, num_heads=flags.num_heads) for key, state in states.items()}
    networks = {key: as_asked(network, flags, given) for key, network in networks.items()}
    network = networks[""]
    data = training_data(flags)
    names = data.class_names if data else read_names(flags)
    if names:
        workdir.same_classes(None, names, path=path, num_outputs=network.num_classes)
    counts = sources.class_counts(data.labels, len(names)) if data else None
    order, how = class_order_of(flags, settings, network, counts)
    lines = "".join(f"{name}\n" for name in names or (f"class {c}" for c in range(network.num_classes)))
    role = "teacher" if network.teacher else "student"
    files = {f"{role}{key}.keras": network for key, network in networks.items()}
    results, old = earlier_import(folder, files=list(files), class_names=lines)

    with naming(path):
        models = {name: official.build(official.in_order(network, order)) for name, network in files.items()}
    for name, model in models.items():
        save(model, folder / name, class_names=names)
    note = {"from": str(path), "network": network.kind, "classes": network.num_classes, "class_order": how}
    results["imported"] = results.get("imported", {}) | dict.fromkeys(files, note)
    workdir.write_json(folder / "results.json", results | counted(counts))
    workdir.write_text(folder / "class_names.txt", lines)
    kept = {name: value for name, value in vars(flags).items() if name in given or name not in old}
    workdir.write_text(folder / "flags.cfg", options.as_flagfile(old | kept | as_flags(network, flags, given)))
    print(f"{path}: {network.kind}, {network.num_classes} classes; their order: {how}")
    print(f"{folder}: {', '.join(files)}, flags.cfg, class_names.txt, results.json")


# ---- the file --------------------------------------------------------------------------------------------------------


def pytorch():
    try:
        import torch
    except ImportError as error:
        raise ValueError(INSTALL) from error
    return torch


def read(path: Path) -> tuple[dict[str, dict], dict]:
    """{"": weights, "_ema": averaged weights, if any} of a PyTorch file as NumPy arrays, and the settings beside them.

    Only tensors and plain values are unpickled, and what the codes of the field put beside them: argparse.Namespace,
    NumPy scalars, paths. Raises FileNotFoundError, or ValueError for a file that is cut off or holds anything else.
    """
    import numpy as np

    torch = pytorch()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such checkpoint.")
    try:
        with torch.serialization.safe_globals(harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's thoughts about a file that it then refuses
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its several readers raise
        raise ValueError(why_not(path, str(error))) from error

    def arrays(value: object) -> dict:
        tensors = value if isinstance(value, Mapping) else {}
        if not tensors or not all(isinstance(v, torch.Tensor) for v in tensors.values()):
            return {}
        return {name: np.array(v.detach().float() if v.is_floating_point() else v) for name, v in tensors.items()}

    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not named weights.")
    if flat := arrays(content):
        return {"": flat}, {}
    states = {
        key: next(filter(None, (arrays(content.get(name)) for name in names)), {}) for key, names in WEIGHTS.items()
    }
    if not states[""]:
        shown = ", ".join(map(str, list(content)[:5])) or "nothing"
        raise ValueError(f"{path} has no weights under {' or '.join(WEIGHTS[''])}: it holds {shown}.")
    settings = content.get("args")
    settings = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    return {key: state for key, state in states.items() if state}, settings if isinstance(settings, dict) else {}


def harmless() -> list:
    """Classes that training codes of the field pickle beside weights; building one runs no code of the file."""
    import pathlib

    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    paths = [(pathlib.PurePosixPath, "pathlib.PosixPath"), (pathlib.PureWindowsPath, "pathlib.WindowsPath")]
    paths += [(kind, name.replace("pathlib", "pathlib._local")) for kind, name in paths]  # Python 3.13
    scalars = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    return [argparse.Namespace, *paths, *scalars, np.dtype, *kinds]


def why_not(path: Path, reason: str) -> str:
    """torch's reason for not reading a file, in one sentence."""
    if found := re.search(r"(?:GLOBAL|Unsupported (?:global|class|type))\W+(?:GLOBAL )?([\w.]+)", reason):
        cut = "" if zipfile.is_zipfile(path) else ", or is cut off"  # torch's older format breaks off anywhere
        return f"{path} holds more than weights ({found[1]}){cut}: refused, and nothing of it was run."
    if "TorchScript" in reason or "Weights only" in reason:
        return f"{path} holds something other than weights: refused, and nothing of it was run."
    first = reason.partition(". ")[0]
    return f"{path} is not a whole PyTorch file ({first if ' ' in first else 'cut off, or of another kind'})."


@contextlib.contextmanager
def naming(path: Path):
    """Errors of recognising and building, with the file's name before them."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def weights(path: str):
    """What `official.start_from` takes, for --init: a .keras file, a PyTorch file, or a keras-hub preset.

    path: a file, or keras_hub:PRESET (a name, or a folder with one).
    """
    from deitlt_tf import official, workdir

    if path.startswith("keras_hub:"):
        try:
            import keras_hub
        except ImportError as error:
            raise ValueError(f"{path}: the package keras-hub is not installed.") from error
        return official.from_keras_hub(keras_hub.models.Backbone.from_preset(path.removeprefix("keras_hub:")))
    if path.endswith(".keras"):
        return workdir.load_model(Path(path))[0]
    states, _ = read(Path(path))
    return states[""]


# ---- the classes -----------------------------------------------------------------------------------------------------


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
    path = Path(flags.class_names_file)
    if not flags.class_names_file:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"--class_names_file={path}: there is no such file.")
    return tuple(line.strip() for line in path.read_text().strip().split("\n"))


def class_order_of(flags: SimpleNamespace, settings: dict, network, counts) -> tuple[object, str]:
    """The order of the head's units (None: as they are), and where it is from.

    Raises ValueError where the classes are known to be sorted by frequency and the order itself is nowhere.
    """
    from deitlt_tf import class_order, official

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
    if not asked and (sorted_data or (network.long_tailed and classes in official.SORTED_BY_FREQUENCY)):
        raise ValueError(
            f"the {classes} classes of {flags.checkpoint} are sorted by frequency, in an order that it does not hold: "
            "give --class_order=official with --train_list, or --class_order=FILE, or --class_order=as_is."
        )
    return None, "as in the checkpoint"


# ---- the network and its workdir -------------------------------------------------------------------------------------


def as_asked(network, flags: SimpleNamespace, given: set[str]):
    """The network with the statistics and, of a ResNet, the image size that `given` flags state instead of its own.

    Raises ValueError where they ask for another architecture.
    """
    from deitlt_tf import assemble
    from deitlt_tf.models import vit

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
        name: assemble.floats(getattr(flags, prefix + name), flag=prefix + name)
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
    return results, vars(options.parse(["", *options.read_flagfile(folder / "flags.cfg")]))


def counted(class_counts) -> dict:
    """What results.json says of the training images, as after a run."""
    from deitlt_tf import metrics

    if class_counts is None:
        return {}
    groups = {convention: metrics.describe_groups(class_counts, convention) for convention in ("shots", "paper")}
    return {"groups": groups, "class_counts": class_counts.tolist()}


def save(model, path: Path, *, class_names: tuple[str, ...] | None) -> None:
    """The .keras file, with class names inside where they are known."""
    from deitlt_tf import workdir

    if class_names:
        workdir.save_model(model, path, class_names=class_names)
        return
    with workdir.replacing(path) as temporary:
        model.save(temporary)


if __name__ == "__main__":
    options.program(main, __doc__, takes=("checkpoint", "class_order", "to_torch"))
