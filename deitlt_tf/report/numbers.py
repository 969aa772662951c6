"""The numbers and pictures of a report or a comparison."""

from pathlib import Path

import jinja2
import keras
import numpy as np

from deitlt_tf.data import augment, pipeline, storage
from deitlt_tf.evaluation import metrics, predictions, probes
from deitlt_tf.evaluation.run import FILES, Run, networks, open_run, test_batches
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.report import pages, sections
from deitlt_tf.runs.checkpoints import Journal
from deitlt_tf.runs.files import write_json, write_text

SEED = 0  # of everything drawn here
BOOTSTRAP = {"resamples": 1000, "seed": SEED, "level": 0.95}
PICTURES = {"rollout": 2, "duel": 12, "mixed": 12}  # of each group; of each winner; in all


def opened(recipe: Recipe) -> Run:
    """The finished run of a recipe. Raises FileNotFoundError unless its workdir holds a finished student."""
    return open_run(
        recipe.run.folder,
        data=recipe.data.loading(),
        student_resize=recipe.student.view.eval_resize,
        teacher_resize=recipe.teacher.view.eval_resize,
    )


def report(recipe: Recipe, run: Run, *, probe_images: int) -> tuple[dict, dict]:
    """numbers (as report.json holds them) and {section: figures}."""
    names, counts, student = run.splits.train.class_names, run.class_counts, recipe.student
    models = networks(run)
    name = "student" if "student" in models else "ViT"
    answers = {
        row: predictions.predict(model, test_batches(run, model, row=row), title=f"{row}, test")
        for row, model in models.items()
    }
    model, predicted = models[name], answers[name]
    last = {row: x for row, x in answers.items() if row != "EMA"}

    rng = np.random.default_rng(SEED)
    drawn = rng.choice(len(predicted.labels), min(probe_images, len(predicted.labels)), replace=False)
    probed = {
        row: probes.probe(models[row], test_batches(run, models[row], indices=drawn, batch=16), title=f"{row}, probes")
        for row in ("ViT", "student")
        if row in models and probes.has_attention(model)
    }
    duel = sections.duel(predicted, counts, most=PICTURES["duel"]) if "dist" in predicted.predicted else None
    mixed = None
    if "teacher" in models and student.distillation.teacher_sees == "mixed":
        mixed = mixed_views(recipe, run, models["teacher"], views=probe_images)
    late = 0 <= student.reweight_epoch < student.schedule.epochs

    numbers = {
        "run": {
            "name": run.folder.resolve().name,
            "data": recipe.data.name,
            "classes": len(names),
            "train_images": len(run.splits.train),
            "test_images": len(predicted.labels),
            "model": f"{model.name}, {model.count_params():,} weights, input of {model.input_shape[1]} pixels",
            "heads": list(predicted.predicted),
            "bootstrap": BOOTSTRAP,
        },
        "groups": {convention: describe_groups(counts, convention) for convention in ("shots", "paper")},
        "table": sections.table(answers, counts, **BOOTSTRAP),
        "classes": sections.by_class(predicted, counts, names),
        "curves": sections.history(
            Journal(run.folder).lines(), reweight_epoch=student.reweight_epoch if late else None
        ),
        "probes": {
            "images": len(drawn),
            "share": sections.SHARE,
            "uniform_distance": probes.uniform_distance(model) if probed else None,
            "models": {row: sections.inside(probe) for row, probe in probed.items()},
        },
        "confusions": sections.confusions(predicted, counts, names),
        "calibration": sections.calibration(last, counts),
        "shifts": sections.shifts(last, counts),
        "duel": duel,
        "mixed": mixed and sections.mixed(mixed, counts),
    }
    figures = pages.figures_of_sections(numbers)
    if name in probed:
        places = of_each_group(predicted.labels[drawn], counts, rng, most=PICTURES["rollout"])
        images = pixels(run, model, drawn[places])
        maps = probed[name].rollout[places]
        figures["rollouts"] = pages.rollouts(images, maps, drawn[places], predicted, counts, names)
    if duel:
        figures |= {
            who: pages.duel(pixels(run, model, indices), indices, predicted, names)
            for who, indices in duel["shown"].items()
        }
    if mixed:
        figures["mixed"] = pages.mixed(mixed, names)
    return numbers, figures


def of_each_group(labels, counts, rng, *, most: int) -> list[int]:
    """Places in `labels` of `most` images of each of head, mid and tail: drawn, not chosen, no class twice."""

    found = []
    for members in metrics.groups(counts, "paper").values():
        places = rng.permutation(np.flatnonzero(np.isin(labels, members)))
        first = np.unique(labels[places], return_index=True)[1]
        found += places[sorted(first)[:most]].tolist()
    return found


def pixels(run: Run, model: keras.Model, indices) -> np.ndarray:
    """uint8 [n, S, S, 3]: what the student sees of the test images at `indices`."""
    if not len(indices):
        return np.zeros((0, 1, 1, 3), np.uint8)
    images, _, _ = next(iter(test_batches(run, model, indices=indices, batch=len(indices))))
    return images.numpy()


def mixed_views(recipe: Recipe, run: Run, teacher: keras.Model, *, views: int) -> predictions.MixedViews:
    """The teacher's answers to the run's own training views and mixing, before re-weighting."""
    batch = 32
    stream = pipeline.train(
        run.splits.train,
        view=augment.training_view(**recipe.student.view.training(resize=recipe.data.resize)),
        batch=batch,
        steps=max(1, views // batch),
        steps_per_epoch=pipeline.steps_per_epoch(len(run.splits.train), batch=batch),
        seed=recipe.run.seed,
        max_pixels=recipe.data.max_pixels,
    )
    return predictions.predict_mixed(
        teacher,
        stream,
        num_classes=len(run.class_counts),
        mixing_options=recipe.student.mixing.keywords(),
        seed=recipe.run.seed,
        pictures=PICTURES["mixed"],
        title="teacher, mixed views",
    )


def comparison(runs: list[Run]) -> tuple[dict, dict]:
    """Tables of each run, and differences from the first one in pairs."""
    for other in runs[1:]:
        same_test(runs[0], other)
    folders = [run.folder.resolve() for run in runs]
    short = [folder.name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    answers = {}
    for name, run in zip(names, runs, strict=True):
        (model,) = networks(run, {"student": FILES["student"]}).values()
        answers[name] = predictions.predict(model, test_batches(run, model), title=f"{name}, test")
    folder_of = {name: str(run.folder) for name, run in zip(names, runs, strict=True)}
    counts = {name: run.class_counts for name, run in zip(names, runs, strict=True)}
    numbers = side_by_side(answers, counts, folders=folder_of)
    return numbers, {"differences": pages.differences(numbers)}


def side_by_side(answers: dict, counts: dict, *, folders: dict[str, str]) -> dict:
    """The numbers of a comparison, each dict by name of run, the first of them the reference for groups and pairs."""

    first, *others = answers
    ours = counts[first]
    return {
        "run": {
            "name": " and ".join(answers) if len(answers) < 4 else f"{first} and {len(others)} other runs",
            "classes": len(ours),
            "test_images": len(answers[first].labels),
            "bootstrap": BOOTSTRAP,
        },
        "groups": {convention: describe_groups(ours, convention) for convention in ("shots", "paper")},
        "table": sections.table(answers, ours, **BOOTSTRAP),
        "compared": {
            "reference": first,
            "runs": folders,
            "other_training_counts": [name for name in others if list(counts[name]) != list(ours)],
            "differences": {
                name: sections.compared(answers[first], answers[name], ours, **BOOTSTRAP) for name in others
            },
        },
    }


def same_test(run: Run, other: Run) -> None:
    """Raises ValueError unless two runs have the same classes and the same test images in the same order.

    Files are the same if their labels, sizes and paths below their common folder are, so a moved copy passes.
    """

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

    templates = jinja2.FileSystemLoader(Path(__file__).parent)
    # autoescape: names of classes and runs are a user's
    environment = jinja2.Environment(
        loader=templates, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.j2").render(pictures=pictures, **numbers)
    write_json(folder / f"{name}.json", numbers)
    write_text(folder / f"{name}.html", page.encode("ascii", "xmlcharrefreplace").decode())
