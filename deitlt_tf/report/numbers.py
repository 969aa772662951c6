"""The numbers and figures of a report on one run, or of a comparison of several runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import keras
import numpy as np

from deitlt_tf.data import augment, sources, storage
from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import hierarchy, metrics, probes
from deitlt_tf.evaluation.predictions import (
    MixedViews,
    Predictions,
    predict,
    predict_mixed,
    predict_split,
    training_batches,
)
from deitlt_tf.evaluation.run import FILES, Run, networks, open_run, test_batches
from deitlt_tf.evaluation.tables import describe_groups
from deitlt_tf.recipes.recipe import Recipe
from deitlt_tf.report import pages, sections
from deitlt_tf.runs.checkpoints import Journal
from deitlt_tf.runs.files import read_text, write_json, write_text

SEED = 0  # of the bootstrap, and of the images that are drawn for probes and pictures
BOOTSTRAP: dict[str, Any] = {"resamples": 1000, "seed": SEED, "level": 0.95}
PICTURES = {"rollout": 2, "duel": 12, "mixed": 12}  # how many for each group, for each winner, in all

Numbers = dict[str, Any]
Figures = dict[str, list[dict]]


def opened(recipe: Recipe) -> Run:
    """The finished run of a recipe. Raises FileNotFoundError unless its workdir holds a finished student."""
    return open_run(
        recipe.run.folder,
        data=recipe.data.loading(),
        student_resize=recipe.student.view.eval_resize,
        teacher_resize=recipe.teacher.view.eval_resize,
    )


# ---- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that a report computes with the networks of a run.

    model: the network that the report is about, in the row `name`: the student, or a plain ViT.
    by_model: {row: predictions for all test images}.
    drawn: [n], indices of the test images that the probes see. probes: {row: probes}, empty without attention.
    mixed: the teacher's answers to mixed views; None without a teacher that saw such views.
    validation: predictions of `model` for the validation split; None without a taxonomy or that split.
    """

    name: str
    model: keras.Model
    by_model: dict[str, Predictions]
    drawn: np.ndarray
    probes: dict[str, probes.Probes]
    mixed: MixedViews | None
    validation: Predictions | None = None

    @property
    def predictions(self) -> Predictions:
        """Those of `model`."""
        return self.by_model[self.name]


def report(recipe: Recipe, run: Run, *, probe_images: int, sure: float = 0.95) -> tuple[Numbers, Figures]:
    """(the numbers of report.json, {section: figures}).

    probe_images: how many test images the probes see at most. sure: see `rollup.choose`, target.
    """
    rng = np.random.default_rng(SEED)
    results = network_results(recipe, run, rng, probe_images=probe_images)
    numbers = report_numbers(recipe, run, results, sure=sure)
    return numbers, report_figures(run, results, numbers, rng)


def network_results(recipe: Recipe, run: Run, rng: np.random.Generator, *, probe_images: int) -> Results:
    """The results of all networks of a run. rng: draws the images for the probes."""
    models = networks(run)
    name, taxonomy = "student" if "student" in models else "ViT", run.splits.taxonomy
    by_model = {
        row: predict(model, test_batches(run, model, row=row), taxonomy=taxonomy, title=f"{row}, test")
        for row, model in models.items()
    }
    validation = None
    if taxonomy is not None and run.splits.val is not None:
        validation = predict_split(
            models[name],
            run.splits.val,
            eval_resize=run.eval_resize["student"],
            max_pixels=run.max_pixels,
            taxonomy=taxonomy,
            title=f"{name}, validation",
        )
    images = len(by_model[name].labels)
    drawn = rng.choice(images, min(probe_images, images), replace=False)
    probed: dict[str, probes.Probes] = {
        row: probes.probe(models[row], test_batches(run, models[row], indices=drawn, batch=16), title=f"{row}, probes")
        for row in ("ViT", "student")
        if row in models and probes.has_attention(models[name])
    }
    mixed = None
    if "teacher" in models and recipe.student.distillation.teacher_sees == "mixed":
        mixed = mixed_views(recipe, run, models["teacher"], views=probe_images)
    return Results(name, models[name], by_model, drawn, probed, mixed, validation)


def report_numbers(recipe: Recipe, run: Run, results: Results, *, sure: float) -> Numbers:
    """The numbers of report.json. sure: see `rollup.choose`, target."""
    names, counts, student = run.splits.train.class_names, run.class_counts, recipe.student
    model, predictions = results.model, results.predictions
    lines = Journal(run.folder).lines()
    clients = sections.clients(results_of(run.folder), lines)
    reweighted = clients is None and 0 <= student.reweight_epoch < student.schedule.epochs
    return {
        "run": {
            "name": run.folder.resolve().name,
            "data": recipe.data.name,
            "classes": len(names),
            "train_images": len(run.splits.train),
            "test_images": len(predictions.labels),
            "model": f"{model.name}, {model.count_params():,} weights, input of {model.input_shape[1]} pixels",
            "network": results.name,
            "heads": list(predictions.predicted),
            "bootstrap": BOOTSTRAP,
        },
        "groups": {convention: describe_groups(counts, convention) for convention in ("shots", "paper")},
        "table": sections.table(results.by_model, counts, **BOOTSTRAP),
        "taxonomy": taxonomy_numbers(run, results, sure=sure) if run.splits.taxonomy else None,
        "classes": sections.by_class(predictions, counts, names),
        "clients": clients,
        "curves": sections.history(
            lines,
            unit="epoch" if clients is None else "round",
            reweight_epoch=student.reweight_epoch if reweighted else None,
        ),
        "probes": {
            "images": len(results.drawn),
            "share": sections.SHARE,
            "uniform_distance": probes.uniform_distance(model) if results.probes else None,
            "models": {row: sections.inside(probe) for row, probe in results.probes.items()},
        },
        "confusions": sections.confusions(predictions, counts, names),
        "calibration": sections.calibration(last_weights(results), counts),
        "shifts": sections.shifts(last_weights(results), counts),
        "duel": sections.duel(predictions, counts, most=PICTURES["duel"]) if "dist" in predictions.predicted else None,
        "mixed": results.mixed and sections.mixed(results.mixed, counts),
    }


def last_weights(results: Results) -> dict[str, Predictions]:
    """{row: predictions} without the moving average and the best weights."""
    return {row: x for row, x in results.by_model.items() if row not in ("EMA", "best")}


def taxonomy_numbers(run: Run, results: Results, *, sure: float) -> Numbers:
    """What report.json says about the ranks of the classes. sure: see `rollup.choose`, target."""
    taxonomy = run.splits.taxonomy
    assert taxonomy is not None
    rows = sections.by_rank(last_weights(results), run.class_counts, taxonomy, answering=results.name, **BOOTSTRAP)
    most = sections.MOST["pairs of nodes"]
    answers = sections.answers_by_rank(
        results.predictions, results.validation, run.class_counts, taxonomy, target=sure, most=most, **BOOTSTRAP
    )
    return rows | {"model": results.name} | answers


def results_of(folder: Path) -> Numbers | None:
    """What results.json holds; None for a run that has none, such as an imported one. ValueError if it is damaged."""
    path = folder / "results.json"
    if not path.is_file():
        return None
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): run `federate` or `train` again.") from error


def report_figures(run: Run, results: Results, numbers: Numbers, rng: np.random.Generator) -> Figures:
    """{section: figures}. rng: draws the images of the attention rollouts."""
    names, counts = run.splits.train.class_names, run.class_counts
    model, predictions = results.model, results.predictions
    figures = pages.figures_of_sections(numbers)
    if results.name in results.probes:
        places = of_each_group(predictions.labels[results.drawn], counts, rng, most=PICTURES["rollout"])
        indices = results.drawn[places]
        maps = results.probes[results.name].rollout[places]
        figures["rollouts"] = pages.rollouts(pixels(run, model, indices), maps, indices, predictions, counts, names)
    if numbers["duel"]:
        figures |= {
            winner: pages.duel(pixels(run, model, indices), indices, predictions, names)
            for winner, indices in numbers["duel"]["shown"].items()
        }
    if results.mixed:
        figures["mixed"] = pages.mixed(results.mixed, names)
    return figures


def of_each_group(labels: np.ndarray, counts: np.ndarray, rng: np.random.Generator, *, most: int) -> list[int]:
    """Positions in `labels` of at most `most` images of each of head, mid and tail, drawn at random.

    Where there is no head and no tail, of all classes. No two images have the same class.
    labels: int [N]. counts: [C], training images of each class.
    """
    positions: list[int] = []
    groups = metrics.groups(counts, "paper") if metrics.is_long_tailed(counts) else {"all": np.arange(len(counts))}
    for members in groups.values():
        candidates = rng.permutation(np.flatnonzero(np.isin(labels, members)))
        first_of_class = np.unique(labels[candidates], return_index=True)[1]
        positions += candidates[sorted(first_of_class)[:most]].tolist()
    return positions


def pixels(run: Run, model: keras.Model, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """uint8 [n, S, S, 3]: the evaluation views of the test images at `indices`."""
    if not len(indices):
        return np.zeros((0, 1, 1, 3), np.uint8)
    images, _, _ = next(iter(test_batches(run, model, indices=indices, batch=len(indices))))
    return images.numpy()


def mixed_views(recipe: Recipe, run: Run, teacher: keras.Model, *, views: int) -> MixedViews:
    """The teacher's answers to about this many training views, mixed as in the run before re-weighting."""
    stream = training_batches(
        run.splits.train,
        view=augment.training_view(**recipe.student.view.training(resize=recipe.data.resize)),
        views=views,
        seed=recipe.run.seed,
        max_pixels=recipe.data.max_pixels,
        sampling=recipe.student.batch.sampling,
    )
    return predict_mixed(
        teacher,
        stream,
        num_classes=len(run.class_counts),
        mixing_options=recipe.student.mixing.keywords(),
        seed=recipe.run.seed,
        pictures=PICTURES["mixed"],
        title="teacher, mixed views",
    )


# ---- several runs ----------------------------------------------------------------------------------------------------


def comparison(runs: Sequence[Run]) -> tuple[Numbers, Figures]:
    """(the numbers of comparison.json, {section: figures}): tables of each run, and differences from the first one.

    Raises ValueError where a run has other test images than the first one.
    """
    for other in runs[1:]:
        same_test(runs[0], other)
    folders = [run.folder.resolve() for run in runs]
    short = [folder.name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    by_run = {}
    for name, run in zip(names, runs, strict=True):
        (model,) = networks(run, {"student": FILES["student"]}).values()
        by_run[name] = predict(model, test_batches(run, model), title=f"{name}, test")
    taxonomy = runs[0].splits.taxonomy
    folder_of = {name: str(run.folder) for name, run in zip(names, runs, strict=True)}
    counts = {name: run.class_counts for name, run in zip(names, runs, strict=True)}
    numbers = side_by_side(by_run, counts, folders=folder_of, taxonomy=taxonomy)
    return numbers, {"differences": pages.differences(numbers)}


def side_by_side(
    by_run: Mapping[str, Predictions],
    counts: Mapping[str, np.ndarray],
    *,
    folders: Mapping[str, str],
    taxonomy: Taxonomy | None = None,
) -> Numbers:
    """The numbers of comparison.json. The first run is the reference for groups, differences and the taxonomy.

    by_run, counts, folders: {name of a run: predictions for the test images, training images of each class, folder}.
    """
    first, *others = by_run
    ours = counts[first]
    ranks = None
    if taxonomy is not None:
        differences = {
            name: {
                rank: sections.compared(by_run[first], by_run[name], ours, nodes=row, **BOOTSTRAP)
                for rank, row in zip(taxonomy.ranks, taxonomy.ancestors, strict=True)
            }
            for name in others
        }
        nearer = {
            f"{name} - {first}: {sections.HEADS[head]}": hierarchy.nearer(
                by_run[first].labels,
                by_run[name].predicted[head],
                by_run[first].predicted[head],
                ours,
                taxonomy,
                **BOOTSTRAP,
            )
            for name in others
            for head in by_run[first].predicted
            if head in by_run[name].predicted
        }
        ranks = sections.by_rank(by_run, ours, taxonomy, **BOOTSTRAP)
        ranks |= {"differences": differences, "nearer": nearer}
    return {
        "run": {
            "name": " and ".join(by_run) if len(by_run) < 4 else f"{first} and {len(others)} other runs",
            "classes": len(ours),
            "test_images": len(by_run[first].labels),
            "bootstrap": BOOTSTRAP,
        },
        "groups": {convention: describe_groups(ours, convention) for convention in ("shots", "paper")},
        "table": sections.table(by_run, ours, **BOOTSTRAP),
        "taxonomy": ranks,
        "compared": {
            "reference": first,
            "runs": dict(folders),
            "other_training_counts": [name for name in others if list(counts[name]) != list(ours)],
            "differences": {name: sections.compared(by_run[first], by_run[name], ours, **BOOTSTRAP) for name in others},
        },
    }


def same_test(run: Run, other: Run) -> None:
    """Raises ValueError unless two runs have the same classes and the same test images in the same order.

    Files count as the same where labels, sizes and paths below their common folder are equal, so a moved copy passes.
    """
    ours, theirs = run.splits.test, other.splits.test
    both = f"{other.folder} cannot be compared with {run.folder}: "
    if ours.class_names != theirs.class_names:
        raise ValueError(both + "their classes differ.")
    if len(ours) != len(theirs):
        raise ValueError(both + f"it has {len(theirs)} test images, the other {len(ours)}.")
    if not (np.array_equal(ours.labels, theirs.labels) and np.array_equal(identities(ours), identities(theirs))):
        raise ValueError(both + "their test images differ.")


def identities(source: sources.Source) -> np.ndarray:
    """[N], what tells the images of a source apart: the pixels in memory, or path and size of each file."""
    if source.kind != "paths":
        return np.asarray(source.images)
    paths = list(source.images)
    sizes = storage.each(storage.size, paths)
    return np.array([f"{path} {size}" for path, size in zip(storage.below_common_folder(paths), sizes, strict=True)])


# ---- files -----------------------------------------------------------------------------------------------------------


def write(folder: Path, name: str, numbers: Numbers, pictures: Figures) -> None:
    """Write name.html and name.json to `folder`. The page is ASCII, so no reader can mistake its encoding."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # because names of classes and runs come from users
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(pictures=pictures, **numbers)
    write_json(folder / f"{name}.json", numbers)
    write_text(folder / f"{name}.html", page.encode("ascii", "xmlcharrefreplace").decode())
