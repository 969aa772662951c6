"""What the programs share: from flags to data, views, networks and numbers. One function each, no state."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from deitlt_tf import devices, metrics, models, official, torch_files, workdir
from deitlt_tf.data import augment, decode, pipeline, sources


def splits(flags: SimpleNamespace, *, folder: Path) -> sources.Splits:
    """Train, validation and test data; --skip_bad_images leaves out what cannot be decoded and lists it in `folder`."""
    found = sources.load(
        flags.data,
        data_dir=flags.data_dir,
        train_list=flags.train_list,
        val_list=flags.val_list,
        test_list=flags.test_list,
        image_root=flags.image_root,
        class_names_file=flags.class_names_file,
        test_fraction=flags.test_fraction,
        val_fraction=flags.val_fraction,
        imbalance=flags.imbalance,
        imbalance_type=flags.imbalance_type,
        imbalance_seed=flags.imbalance_seed,
        split_seed=flags.split_seed,
        download=flags.download,
    )
    if flags.skip_bad_images:
        found = without_bad_images(found, max_pixels=max_pixels(flags), report=folder / "skipped_images.txt")
    counts = sources.class_counts(found.train.labels, len(found.train.class_names))
    print(
        f"{flags.data}: {len(found.train)} training images "
        + f"in {len(counts)} classes ({counts.max()} to {counts.min()}), "
        + (f"{len(found.val)} for validation, " if found.val else "")
        + f"{len(found.test)} for testing"
    )
    return found


def max_pixels(flags: SimpleNamespace) -> int:
    return int(flags.max_megapixels * 1e6)


def in_memory(source: sources.Source, flags: SimpleNamespace) -> sources.Source:
    """The training images, decoded if --decoded_mb allows."""
    return pipeline.decoded(source, limit=flags.decoded_mb * 1e6, max_pixels=max_pixels(flags))


def bad_images(source: sources.Source, *, max_pixels: int) -> list[tuple[int, str]]:
    if source.kind == "pixels":
        return []
    return decode.bad_images(source.images, sources.names(source), max_pixels=max_pixels)


def without_bad_images(found: sources.Splits, *, max_pixels: int, report: Path) -> sources.Splits:
    lines, kept = [], {}
    for name in ("train", "val", "test"):
        source = getattr(found, name)
        bad = bad_images(source, max_pixels=max_pixels) if source else []
        lines += [f"{name}\t{sources.names(source)[index]}\t{reason}" for index, reason in bad]
        kept[name] = sources.take(source, np.setdiff1d(np.arange(len(source)), [i for i, _ in bad])) if bad else source
    if devices.is_chief():
        workdir.write_text(report, "".join(line + "\n" for line in lines))
    counts = sources.class_counts(kept["train"].labels, len(found.train.class_names))
    if counts.min() == 0:
        raise ValueError(
            f"class {found.train.class_names[counts.argmin()]!r} has no readable training image left: see {report}."
        )
    print(f"skipped {len(lines)} images that cannot be decoded" + (f", listed in {report}" if lines else ""))
    return sources.Splits(**kept)


def naming_bad_images(action: Callable, found: sources.Splits, *, max_pixels: int):
    """action(), where a failure to decode an image is told by the image's name. Looks for it only after a failure."""
    try:
        return action()
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        print("an image could not be read; looking for all that cannot")
        for source in filter(None, (found.train, found.val, found.test)):
            bad = bad_images(source, max_pixels=max_pixels)
            if bad:
                _, reason = bad[0]
                more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
                raise ValueError(
                    f"{reason}{more}. Mend or remove it, or leave such images out with --skip_bad_images."
                ) from error
        raise


def of_network(flags: SimpleNamespace, *, teacher: bool) -> SimpleNamespace:
    """The flags of one image as one network sees it: --teacher_X as X for the teacher."""
    names = ("image_size", "crop", "crop_min_scale", "padding", "flip", "randaugment", "erasing", "eval_resize")
    prefix = "teacher_" if teacher else ""
    return SimpleNamespace(**{name: getattr(flags, prefix + name) for name in names}, resize=flags.resize)


def randaugment(text: str) -> augment.RandAugment | None:
    """timm's notation, `rand-m9-mstd0.5-inc1` (also n: operations per image, p: probability of each); empty: none."""
    if not text:
        return None
    kind, *settings = text.split("-")
    names = {"m": "magnitude", "mstd": "std", "n": "layers", "p": "probability"}
    found = {}
    for setting in settings:
        name = setting.rstrip("0123456789.")
        if setting == "inc1":
            continue
        if name not in names or name == setting:
            raise ValueError(
                f"--randaugment={text}: {setting!r} is not understood; an example is rand-m9-mstd0.5-inc1."
            )
        found[names[name]] = (int if name == "n" else float)(setting.removeprefix(name))
    if kind != "rand" or "inc1" not in settings:
        raise ValueError(f"--randaugment={text}: only `rand-...-inc1` is offered; an example is rand-m9-mstd0.5-inc1.")
    return augment.RandAugment(**found)


def train_view(flags: SimpleNamespace, *, teacher: bool = False, views: int = 1) -> Callable:
    """image, seed -> the training view; with views=2 the teacher's first and second view of it."""
    f = of_network(flags, teacher=teacher)
    if views == 2:
        second = copy.copy(flags)
        second.teacher_randaugment, second.teacher_erasing = (
            flags.teacher_second_randaugment, flags.teacher_second_erasing
        )  # fmt: skip
        one, other = (train_view(x, teacher=True) for x in (flags, second))
        return lambda image, seed: (one(image, seed), other(image, tf.stack([~seed[0], seed[1]])))
    return functools.partial(
        augment.train_view,
        size=f.image_size,
        crop=f.crop,
        scale=(f.crop_min_scale, 1.0),
        padding=f.padding,
        flip=f.flip,
        randaugment=randaugment(f.randaugment),
        erasing=f.erasing,
        resize=f.resize,
    )


def with_clean_view(flags: SimpleNamespace) -> Callable:
    """image, seed -> the training view, and the same crop and mirror image of it without RandAugment and erasing."""
    clean = copy.copy(flags)
    clean.randaugment, clean.erasing = "", 0.0
    one, other = train_view(flags), train_view(clean)
    return lambda image, seed: (one(image, seed), other(image, seed))


def mixing(flags: SimpleNamespace) -> dict[str, float]:
    """Keywords of `mixing.mix`."""
    return {
        "mixup_alpha": flags.mixup,
        "cutmix_alpha": flags.cutmix,
        "probability": flags.mix_prob,
        "switch_probability": flags.switch_prob,
        "smoothing": flags.smoothing,
    }


def reweight_epoch(flags: SimpleNamespace) -> int:
    """The epoch from which --method weighs the student's loss by class; -1: never."""
    return flags.reweight_epoch if flags.method in ("deit_lt", "vit_drw") else -1


def evaluation_batches(
    source: sources.Source, flags: SimpleNamespace, *, teacher: bool = False, batch: int = 100, **share: int
) -> tf.data.Dataset:
    """share: of several workers, as `devices.distributed` gives it."""
    f = of_network(flags, teacher=teacher)
    view = functools.partial(augment.evaluation_view, size=f.image_size, resize=f.eval_resize)
    return pipeline.evaluation(source, view=view, batch=batch, max_pixels=max_pixels(flags), **share)


def measure(
    model: keras.Model,
    source: sources.Source,
    flags: SimpleNamespace,
    *,
    class_counts: np.ndarray,
    teacher: bool = False,
    title: str,
) -> dict[str, dict[str, dict[str, float | None]]]:
    """`metrics.accuracies` of one network on one split, with a progress bar; batches grow with small images."""
    size = of_network(flags, teacher=teacher).image_size
    batch = 500 if size <= 64 else 100
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    batch = max(1, batch // replicas) * replicas
    batches = devices.distributed(
        lambda **share: evaluation_batches(source, flags, teacher=teacher, batch=batch, **share)
    )
    counted = metrics.count_hits(
        model, batches, num_classes=len(class_counts), title=title if devices.is_chief() else None
    )
    return metrics.accuracies(counted, class_counts)


def check_batch(size: int, *, parts: int = 1, flag: str) -> None:
    """Raises ValueError unless a batch splits evenly over the current strategy's devices and `parts` on each."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if size % (replicas * parts):
        raise ValueError(
            f"--{flag}={size} does not split evenly over {replicas} devices with {parts} parts (--accumulation) each."
        )


def floats(values: list[str], *, flag: str) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        raise ValueError(f"--{flag}={','.join(values)} is not a list of numbers.") from None


def student(flags: SimpleNamespace, *, num_classes: int) -> keras.Model:
    """A new student, or for --method=vit and vit_drw the plain ViT of its size. Its weights depend on --seed alone."""
    keras.utils.set_random_seed(flags.seed)
    name = flags.model.replace("deit_", "vit_") if flags.method.startswith("vit") else flags.model
    network = models.build(
        name,
        num_classes=num_classes,
        image_size=flags.image_size,
        patch_size=flags.patch_size,
        depth=flags.depth or None,
        embed_dim=flags.embed_dim or None,
        num_heads=flags.num_heads or None,
        drop_path=flags.drop_path,
        mean=floats(flags.mean, flag="mean"),
        std=floats(flags.std, flag="std"),
    )
    if flags.init:
        weights = starting_weights(flags.init)
        try:
            notes = official.start_from(network, weights)
        except ValueError as error:
            raise ValueError(f"--init={flags.init}: {error}") from error
        for note in notes:
            print(f"{flags.init}: {note}")
    return network


def starting_weights(path: str) -> keras.Model | dict[str, np.ndarray]:
    """What `official.start_from` takes: of a .keras file, a PyTorch file, or keras_hub:PRESET (a name or a folder)."""
    kind, _, preset = path.partition(":")
    if kind == "keras_hub":
        try:
            import keras_hub
        except ImportError as error:
            raise ValueError(f"{path} needs the package keras-hub: python -m pip install keras-hub.") from error
        return official.from_keras_hub(keras_hub.models.Backbone.from_preset(preset))
    if path.endswith(".keras"):
        return workdir.load_model(Path(path))[0]
    return torch_files.read(Path(path))[0][""]


def teacher_network(flags: SimpleNamespace, *, num_classes: int) -> keras.Model:
    """A new teacher network. Its weights depend on --seed alone."""
    keras.utils.set_random_seed(flags.seed)
    network = models.build(
        flags.teacher_model,
        num_classes=num_classes,
        image_size=flags.teacher_image_size,
        classifier=flags.teacher_classifier,
        mean=floats(flags.teacher_mean, flag="teacher_mean"),
        std=floats(flags.teacher_std, flag="teacher_std"),
    )
    if flags.teacher_init:
        start_from(network, Path(flags.teacher_init))
    return network


def scale_cosines(network: keras.Model, *, ldam: float) -> None:
    """Give a network that answers bare cosines LDAM's scale, which the loss has while it is trained, as officially.

    The classes it chooses stay; what takes a softmax of its answers (soft distillation, confidences) gets logits. Done
    where a teacher's file is written, so that those who read it need not know its objective.
    """
    last = network.layers[-1]
    if isinstance(last, models.resnet.CosineClassifier) and last.scale == 1:
        last.scale = ldam


def start_from(network: keras.Model, path: Path) -> None:
    """Set a CNN to the weights of a model file; the classifier stays new where its shape differs.

    Raises ValueError for a file of another architecture.
    """
    source, _ = workdir.load_model(path)
    own, given = models.state_dict(network), models.state_dict(source)
    head = {name for name in own.keys() | given.keys() if name.split(".")[-2] == "fc"}
    body = (own.keys() | given.keys()) - head
    differ = [name for name in sorted(body) if name not in own or name not in given]
    differ += [name for name in sorted(body - set(differ)) if own[name].shape != given[name].shape]
    if differ:
        raise ValueError(f"{path} ({source.name}) is another network than {network.name}: {differ[0]} differs.")
    for name in body | {name for name in head & given.keys() & own.keys() if own[name].shape == given[name].shape}:
        own[name].assign(given[name].numpy())


def print_tables(rows: dict[str, dict], class_counts) -> None:
    """rows: {name: {convention: {overall, head, mid, tail}}}."""
    for convention in ("shots", "paper"):
        title = "top-1 accuracy, %; " + metrics.describe_groups(class_counts, convention)
        tqdm.write("\n" + metrics.format_table({name: row[convention] for name, row in rows.items()}, title=title))


def rows_of(prefix: str, measured: dict[str, dict[str, dict]]) -> dict[str, dict]:
    """{convention: {head: row}} of one model as table rows `prefix head`: {name: {convention: row}}."""
    labels = {"cls": "CLS", "dist": "DIST", "mean": "mean"}
    heads = next(iter(measured.values()))
    names = {head: f"{prefix} {labels[head]}" if len(heads) > 1 else prefix for head in heads}
    return {names[head]: {c: measured[c][head] for c in measured} for head in heads}
