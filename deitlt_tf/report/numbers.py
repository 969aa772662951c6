"""The numbers and pictures of a report or a comparison."""

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from deitlt_tf.recipes import command_line

SEED = 0  # of everything drawn here
BOOTSTRAP = {"resamples": 1000, "seed": SEED, "level": 0.95}
FILES = {"ViT": "vit/student", "teacher": "teacher", "student": "student", "EMA": "student_ema"}
PICTURES = {"rollout": 2, "duel": 12, "mixed": 12}  # of each group; of each winner; in all


class Run(NamedTuple):
    """A finished run: its folder, flags, data, and the training images of each class."""

    folder: Path
    flags: SimpleNamespace
    splits: object  # sources.Splits
    counts: object  # int [C]


def opened(flags: SimpleNamespace) -> Run:
    """Raises FileNotFoundError unless the workdir holds a finished student."""
    from deitlt_tf.data import sources
    from deitlt_tf.runs.data import load_splits

    folder = Path(flags.workdir)
    if not (folder / "student.keras").is_file():
        raise FileNotFoundError(
            f"{folder} holds no finished student (student.keras): finish its run first, with "
            f"python -m deitlt_tf.train --flagfile={folder / 'flags.cfg'}."
        )
    splits = load_splits(flags, folder=folder)
    return Run(folder, flags, splits, sources.class_counts(splits.train.labels, len(splits.train.class_names)))


def networks(run: Run, files: dict[str, str] = FILES) -> dict[str, object]:
    """{name: the model} of `files` that the workdir has, each checked against the data's classes.

    A student of one head is a plain ViT, and is called so.
    """
    from deitlt_tf.models import interface
    from deitlt_tf.runs.models import load_model, same_classes

    found = {}
    for name, file in files.items():
        path = run.folder / f"{file}.keras"
        if not path.is_file():
            continue
        found[name], names = load_model(path)
        outputs = next(iter(interface.heads(found[name].output).values())).shape[-1]
        same_classes(names, run.splits.train.class_names, path=path, num_outputs=outputs)
    if not isinstance(found["student"].output, dict):
        found["ViT"] = found.pop("student")
    return found


def batches(run: Run, *, indices=None, batch: int | None = None, teacher: bool = False):
    """Evaluation batches of the test images, or of those at `indices`; batches grow with small images."""
    from deitlt_tf.data import sources
    from deitlt_tf.recipes.recipe import of_network
    from deitlt_tf.training.views import evaluation_batches

    source = run.splits.test if indices is None else sources.take(run.splits.test, indices)
    small = of_network(run.flags, teacher=teacher).image_size <= 64
    return evaluation_batches(source, run.flags, teacher=teacher, batch=batch or (500 if small else 100))


def report(run: Run) -> tuple[dict, dict]:
    """numbers (as report.json holds them) and {section: figures}."""
    import numpy as np

    from deitlt_tf.evaluation import predictions, probes, tables
    from deitlt_tf.recipes.recipe import reweight_epoch_of
    from deitlt_tf.report import pages, sections
    from deitlt_tf.runs.checkpoints import Journal

    names, counts, flags = run.splits.train.class_names, run.counts, run.flags
    models = networks(run)
    name = "student" if "student" in models else "ViT"
    asked = {
        row: predictions.predict(model, batches(run, teacher=row == "teacher"), title=f"{row}, test")
        for row, model in models.items()
    }
    model, given = models[name], asked[name]
    last = {row: x for row, x in asked.items() if row != "EMA"}

    rng = np.random.default_rng(SEED)
    drawn = rng.choice(len(given.labels), min(flags.probe_images, len(given.labels)), replace=False)
    looked = {
        row: probes.probe(models[row], batches(run, indices=drawn, batch=16), title=f"{row}, probes")
        for row in ("ViT", "student")
        if row in models and probes.has_attention(model)
    }
    duel = sections.duel(given, counts, most=PICTURES["duel"]) if "dist" in given.predicted else None
    mixed = mixed_views(run, models["teacher"]) if "teacher" in models and flags.teacher_sees == "mixed" else None
    late = 0 <= reweight_epoch_of(flags) < flags.epochs

    numbers = {
        "run": {
            "name": run.folder.resolve().name,
            "data": flags.data,
            "classes": len(names),
            "train_images": len(run.splits.train),
            "test_images": len(given.labels),
            "model": f"{model.name}, {model.count_params():,} weights, input of {model.input_shape[1]} pixels",
            "heads": list(given.predicted),
            "bootstrap": BOOTSTRAP,
        },
        "groups": {convention: tables.describe_groups(counts, convention) for convention in ("shots", "paper")},
        "table": sections.table(asked, counts, **BOOTSTRAP),
        "classes": sections.by_class(given, counts, names),
        "curves": sections.history(Journal(run.folder).lines(), reweight_epoch=flags.reweight_epoch if late else None),
        "probes": {
            "images": len(drawn),
            "share": sections.SHARE,
            "uniform_distance": probes.uniform_distance(model) if looked else None,
            "models": {row: sections.inside(found) for row, found in looked.items()},
        },
        "confusions": sections.confusions(given, counts, names),
        "calibration": sections.calibration(last, counts),
        "shifts": sections.shifts(last, counts),
        "duel": duel,
        "mixed": mixed and sections.mixed(mixed, counts),
    }
    figures = pages.figures_of_sections(numbers)
    if name in looked:
        places = of_each_group(given.labels[drawn], counts, rng, most=PICTURES["rollout"])
        shown = pixels(run, drawn[places])
        figures["rollouts"] = pages.rollouts(shown, looked[name].rollout[places], drawn[places], given, counts, names)
    if duel:
        figures |= {who: pages.duel(pixels(run, i), i, given, names) for who, i in duel["shown"].items()}
    if mixed:
        figures["mixed"] = pages.mixed(mixed, names)
    return numbers, figures


def of_each_group(labels, counts, rng, *, most: int) -> list[int]:
    """Places in `labels` of `most` images of each of head, mid and tail: drawn, not chosen, no class twice."""
    import numpy as np

    from deitlt_tf.evaluation import metrics

    found = []
    for members in metrics.groups(counts, "paper").values():
        places = rng.permutation(np.flatnonzero(np.isin(labels, members)))
        first = np.unique(labels[places], return_index=True)[1]
        found += places[sorted(first)[:most]].tolist()
    return found


def pixels(run: Run, indices):
    """uint8 [n, S, S, 3]: what the student sees of the test images at `indices`."""
    import numpy as np

    if not len(indices):
        return np.zeros((0, 1, 1, 3), np.uint8)
    images, _, _ = next(iter(batches(run, indices=indices, batch=len(indices))))
    return images.numpy()


def mixed_views(run: Run, teacher):
    """`answers.ask_mixed` of the run's own training views and mixing, before re-weighting."""
    from deitlt_tf.data import pipeline
    from deitlt_tf.evaluation import predictions
    from deitlt_tf.recipes.recipe import max_pixels_of, mixing_of
    from deitlt_tf.training.views import train_view

    flags, batch = run.flags, 32
    stream = pipeline.train(
        run.splits.train,
        view=train_view(flags),
        batch=batch,
        steps=max(1, flags.probe_images // batch),
        steps_per_epoch=pipeline.steps_per_epoch(len(run.splits.train), batch=batch),
        seed=flags.seed,
        max_pixels=max_pixels_of(flags),
    )
    return predictions.predict_mixed(
        teacher,
        stream,
        num_classes=len(run.counts),
        mixing_options=mixing_of(flags),
        seed=flags.seed,
        pictures=PICTURES["mixed"],
        title="teacher, mixed views",
    )


def comparison(run: Run) -> tuple[dict, dict]:
    """The runs of --compare beside the first: tables of each, differences from the first in pairs."""
    from deitlt_tf.evaluation import predictions
    from deitlt_tf.report import pages

    folders = list(dict.fromkeys(Path(folder).resolve() for folder in (run.folder, *run.flags.compare)))
    if len(folders) < 2:
        raise ValueError(f"--compare={','.join(run.flags.compare)} names one run: a comparison takes two or more.")
    runs = [run, *(opened(flags_of(run.flags, folder)) for folder in folders[1:])]
    for other in runs[1:]:
        same_test(run, other)
    short = [folder.name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    asked = {}
    for name, one in zip(names, runs, strict=True):
        (model,) = networks(one, {"student": FILES["student"]}).values()
        asked[name] = predictions.predict(model, batches(one), title=f"{name}, test")
    folder_of = {name: str(one.folder) for name, one in zip(names, runs, strict=True)}
    numbers = side_by_side(asked, {name: one.counts for name, one in zip(names, runs, strict=True)}, folders=folder_of)
    return numbers, {"differences": pages.differences(numbers)}


def side_by_side(asked: dict, counts: dict, *, folders: dict[str, str]) -> dict:
    """The numbers of a comparison, each dict by name of run, the first of them the reference for groups and pairs."""
    from deitlt_tf.evaluation import tables
    from deitlt_tf.report import sections

    first, *others = asked
    ours = counts[first]
    return {
        "run": {
            "name": " and ".join(asked) if len(asked) < 4 else f"{first} and {len(others)} other runs",
            "classes": len(ours),
            "test_images": len(asked[first].labels),
            "bootstrap": BOOTSTRAP,
        },
        "groups": {convention: tables.describe_groups(ours, convention) for convention in ("shots", "paper")},
        "table": sections.table(asked, ours, **BOOTSTRAP),
        "compared": {
            "reference": first,
            "runs": folders,
            "other_training_counts": [name for name in others if list(counts[name]) != list(ours)],
            "differences": {name: sections.compared(asked[first], asked[name], ours, **BOOTSTRAP) for name in others},
        },
    }


def flags_of(flags: SimpleNamespace, folder: Path) -> SimpleNamespace:
    """The flags of another run, under what the command line said: what differs here from this run's own flags.cfg."""
    kept, theirs = (
        vars(command_line.parse(["report", f"--workdir={place}"], from_workdir=True))
        for place in (flags.workdir, folder)
    )
    given = {name: value for name, value in vars(flags).items() if name not in kept or value != kept[name]}
    return SimpleNamespace(**theirs | given | {"workdir": str(folder)})


def same_test(run: Run, other: Run) -> None:
    """Raises ValueError unless two runs have the same classes and the same test images in the same order.

    Files are the same if their labels, sizes and paths below their common folder are, so a moved copy passes.
    """
    import numpy as np

    from deitlt_tf.data import storage

    ours, theirs = run.splits.test, other.splits.test
    both = f"{other.folder} cannot be compared with {run.folder}: "
    if ours.class_names != theirs.class_names:
        raise ValueError(both + "their classes differ.")
    if len(ours) != len(theirs):
        raise ValueError(both + f"it has {len(theirs)} test images, the other {len(ours)}.")

    def below(source):
        if source.kind != "paths":
            return source.images
        paths = list(source.images)
        sizes = storage.each(storage.size, paths)
        return np.array(
            [f"{path} {size}" for path, size in zip(storage.below_common_folder(paths), sizes, strict=True)]
        )

    if not (np.array_equal(ours.labels, theirs.labels) and np.array_equal(below(ours), below(theirs))):
        raise ValueError(both + "their test images differ.")


def write(folder: Path, name: str, numbers: dict, pictures: dict) -> None:
    """name.html and name.json in `folder`. The page is ASCII: whatever reads it cannot mistake its encoding."""
    import jinja2

    from deitlt_tf.runs.files import write_json, write_text

    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    # autoescape: names of classes and runs are a user's
    environment = jinja2.Environment(
        loader=templates, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.j2").render(pictures=pictures, **numbers)
    write_json(folder / f"{name}.json", numbers)
    write_text(folder / f"{name}.html", page.encode("ascii", "xmlcharrefreplace").decode())
