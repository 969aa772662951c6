"""What all exports share: the network with its heads and prior, the images to check on, paths and metadata."""

import hashlib
import json

import numpy as np
import pytest
import tensorflow as tf
from helpers import tiny_run

from deitlt_tf.evaluation import rollup, thresholds
from deitlt_tf.serving import priors, served

COUNTS = np.array(tiny_run.CLASS_COUNTS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_run.finished(tmp_path_factory.mktemp("finished"), teacher=True)


def load(folder, *arguments: str, weights: str = "student", **wishes) -> served.Served:
    return served.load_served(tiny_run.recipe_of(folder, *arguments), weights=weights, **wishes)


@pytest.mark.parametrize("heads", ["all", "mean", "cls", "dist"])
def test_the_main_head_has_the_probabilities_and_the_adjustment(heads):
    cls, dist = tf.constant([[1.0, 2.0, 0.0]]), tf.constant([[3.0, 0.0, 1.0]])
    shift = np.array([0.5, 0.0, -0.5], np.float32)
    logits = {"cls": cls, "dist": dist, "mean": (cls + dist) / 2}
    main = "mean" if heads == "all" else heads
    outputs = served.answers({"cls": cls, "dist": dist}, heads=heads, adjustment=shift)
    names = logits if heads == "all" else [heads]
    assert set(outputs) == {f"logits_{name}" for name in names} | {"probabilities"}
    for name in names:
        expected = logits[name] + shift if name == main else logits[name]
        np.testing.assert_allclose(outputs[f"logits_{name}"], expected, rtol=1e-6)
    np.testing.assert_allclose(outputs["probabilities"], tf.nn.softmax(logits[main] + shift), rtol=1e-6)


def test_a_served_network_has_its_classes_and_its_view(tiny):
    network = load(tiny, "--eval_resize=10")
    assert network.class_names == tiny_run.CLASS_NAMES and network.class_counts.tolist() == COUNTS.tolist()
    assert (network.heads, network.adjustment, network.image_size, network.eval_resize) == ("all", None, 8, 10)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(network(images)["logits_cls"], network.model(images.astype(np.float32))["cls"])
    teacher = load(tiny, "--eval_resize=10", weights="teacher")
    assert (teacher.heads, teacher.eval_resize) == ("cls", 0)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (
            {"weights": "teacher", "heads": "dist"},
            "heads=dist: .*teacher.keras has one head",
        ),
        ({"weights": "teacher", "prior": "uniform"}, "prior.* is for the student"),
    ],
)
def test_what_a_network_does_not_have_is_refused(tiny, wishes, message):
    with pytest.raises(ValueError, match=message):
        load(tiny, **wishes)


def test_a_prior_needs_class_counts(tiny, tmp_path):
    for name in ("flags.cfg", "student.keras"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(ValueError, match=f"needs the class counts of the training data, which {tmp_path} does not"):
        load(tmp_path, prior="uniform")


@pytest.mark.parametrize("arguments", [[], ["--method=deit"], ["--sampling=sqrt"], ["--logit_adjustment=1"]])
def test_a_prior_undoes_what_the_recipe_assumes_of_cls(tiny, arguments):
    """CLS knows nothing of the teacher, so all of it follows from the recipe."""
    network = load(tiny, *arguments, heads="cls", prior="uniform")
    settings = tiny_run.recipe_of(tiny, *arguments).student
    assumed = priors.log_assumed(
        class_counts=COUNTS, sampling=settings.batch.sampling, logit_adjustment=settings.logit_adjustment
    )
    shift = -assumed["cls"]
    np.testing.assert_allclose(network.adjustment, shift - shift.mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "reweighted"),
    [([], True), (["--method=deit"], False), (["--reweight_epoch=-1"], False), (["--reweight_epoch=2"], False)],
)
def test_a_prior_undoes_the_weights_of_dist_if_the_recipe_has_weighted_it(tiny, tmp_path, arguments, reweighted):
    """Two epochs: from epoch 2 on is never. There is no teacher here, so DIST's labels are those of the images."""
    for name in ("flags.cfg", "student.keras", "results.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    network = load(tmp_path, *arguments, heads="dist", prior="uniform")
    shift = -priors.log_assumed(class_counts=COUNTS, reweighted=reweighted)["dist"]
    np.testing.assert_allclose(network.adjustment, shift - shift.mean(), atol=1e-6)


def weights_in(folder, **entries: dict) -> None:
    """Write which weights a run of two steps has kept, as its training does."""
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 2, "weights": entries}))


@pytest.mark.parametrize(
    ("entry", "share"),
    [
        ({"step": 2, "kind": "raw"}, 1),  # K = 1 of two epochs, of one step each
        ({"step": 1, "kind": "raw"}, 0),
        ({"step": 2, "kind": "ema", "decay": 0.75}, 0.25),
        ({"step": 1, "kind": "ema", "decay": 0.75}, 0),
        (None, 1),  # a run of an earlier version
    ],
)
def test_a_prior_goes_by_what_the_kept_weights_saw(tiny, tmp_path, entry, share):
    for name in ("flags.cfg", "student.keras", "results.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    if entry:
        weights_in(tmp_path, student=entry)
    network = load(tmp_path, "--reweight_epoch=1", "--noema_warmup", heads="dist", prior="uniform")
    shift = -priors.log_assumed(class_counts=COUNTS, reweighted=share)["dist"]
    np.testing.assert_allclose(network.adjustment, shift - shift.mean(), atol=1e-6)


def test_each_network_goes_by_its_own_weights(tiny, tmp_path):
    for name in ("flags.cfg", "results.json"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    raw, ema = {"step": 1, "kind": "raw"}, {"step": 2, "kind": "ema", "decay": 0.9}
    weights_in(tmp_path, student=raw | {"step": 2}, student_ema=ema, student_best=raw)
    for warmup, of_average in (
        ("--noema_warmup", 0.1),
        ("--ema_warmup", 1 - 3 / 12),
    ):  # after 2 steps d is at most 3 / 12
        recipe = tiny_run.recipe_of(tmp_path, "--reweight_epoch=1", warmup)
        shares = [served.reweighted_share(recipe, weights=weights) for weights in ("student", "ema", "best")]
        assert shares == pytest.approx([1, of_average, 0])


@pytest.mark.slow
@pytest.mark.parametrize("sees", ["mixed", "clean"])
def test_the_teachers_labels_are_those_that_dist_learnt_from(tiny, monkeypatch, sees):
    """Mixed views: uint8 or float pixels of the run's own view, mixed; clean ones: every training image once."""
    images = []

    def teacher(model):
        def answer(pixels):
            images.append(np.asarray(pixels, np.float32))
            return np.eye(len(COUNTS))[np.zeros(len(pixels), int)]

        return answer

    monkeypatch.setattr(served, "_teacher", teacher)
    monkeypatch.setattr(served, "write_json", lambda path, content: None)
    # Half of two images in all views: what is drawn has values that no image has.
    recipe = tiny_run.recipe_of(tiny, f"--teacher_sees={sees}", "--mix_prob=1", "--switch_prob=0", "--mixup=0.8")
    counts = served.teacher_counts_of(recipe, tiny_run.CLASS_NAMES, COUNTS)
    number = served.MIXED_VIEWS if sees == "mixed" else COUNTS.sum()
    np.testing.assert_array_equal(counts, [1 + number, 1, 1])
    pixels = np.concatenate(images)
    assert np.any(pixels != np.round(pixels)) == (sees == "mixed")


@pytest.mark.slow
def test_labels_that_an_earlier_version_kept_are_not_used(tiny, tmp_path):
    for path in tiny.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    digest = hashlib.sha256((tmp_path / "teacher.keras").read_bytes()).hexdigest()
    cache = tmp_path / "teacher_labels.json"
    cache.write_text(json.dumps({"teacher": digest, "counts": [1, 1, 10**9]}))
    recipe = tiny_run.recipe_of(tmp_path)
    counts = served.teacher_counts_of(recipe, tiny_run.CLASS_NAMES, COUNTS)
    assert counts.sum() == served.MIXED_VIEWS + 3 and counts.tolist() == json.loads(cache.read_text())["counts"]
    other = tiny_run.recipe_of(tmp_path, "--mixup=0.3")
    served.teacher_counts_of(other, tiny_run.CLASS_NAMES, COUNTS)
    assert json.loads(cache.read_text())["key"]["mixing"]["mixup"] == 0.3  # other views: counted again


@pytest.mark.slow
def test_the_teachers_labels_are_counted_once_for_a_run(tmp_path, capsys):
    folder = tiny_run.finished(tmp_path, teacher=True)
    first = load(folder, prior="uniform").adjustment
    assert (folder / "teacher_labels.json").is_file()
    for path in (tmp_path / "images" / "train").rglob("*.*"):
        path.unlink()
    np.testing.assert_array_equal(load(folder, prior="uniform").adjustment, first)
    (folder / "teacher.keras").unlink()
    assert np.abs(load(folder, prior="uniform").adjustment - first).max() > 1e-3
    assert "there is no" in capsys.readouterr().out


def images_of(folder, check_images: int) -> served.Images:
    network, recipe = load(folder), tiny_run.recipe_of(folder)
    return served.images_to_check(recipe, network, weights="student", check_images=check_images)


def test_an_export_is_checked_on_the_test_images(tiny):
    whole = images_of(tiny, -1)
    assert whole.class_counts.tolist() == COUNTS.tolist()
    ((images, labels, mask),) = whole.batches.as_numpy_iterator()
    assert images.shape[1:] == (8, 8, 3) and images.dtype == np.uint8 and mask.sum() == 12
    ((some, few, marks),) = images_of(tiny, 3).batches.as_numpy_iterator()
    assert marks.sum() == 3
    np.testing.assert_array_equal(some[:3], images[[0, 6, 11]])  # spread over the classes
    np.testing.assert_array_equal(few[:3], labels[[0, 6, 11]])


def test_or_on_random_pixels_where_there_is_no_data(tiny):
    random = images_of(tiny, 0)
    batches = list(random.batches.as_numpy_iterator())
    assert sum(len(images) for images, _, _ in batches) == 64 and random.class_counts is None
    assert random.reading(lambda: "read") == "read"


def test_a_file_lies_next_to_its_network_unless_it_is_named(tiny, tmp_path):
    recipe = tiny_run.recipe_of(tiny)
    for weights, name in (("student", "student.onnx"), ("ema", "student_ema.onnx"), ("teacher", "teacher.onnx")):
        assert served.path_of(recipe, weights=weights, out="", suffix=".onnx") == tiny / name
    out = str(tmp_path / "x.onnx")
    assert served.path_of(recipe, weights="student", out=out, suffix=".onnx") == tmp_path / "x.onnx"
    with pytest.raises(ValueError, match=r"out=.*x\.onnx: the name of the file has to end in \.tflite"):
        served.path_of(recipe, weights="student", out=out, suffix=".tflite")


def test_metadata_are_json_texts(tiny):
    texts = served.metadata(load(tiny, heads="cls"), weights="student", prior="")
    assert {name: json.loads(text) for name, text in texts.items()} == {
        "class_names": list(tiny_run.CLASS_NAMES),
        "class_counts": COUNTS.tolist(),
        "image_size": 8,
        "eval_resize": 0,
        "heads": "cls",
        "prior": "",
        "weights": "student",
    }


# ---- answers by rank -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A finished run whose model holds a taxonomy."""
    return tiny_run.finished(tmp_path_factory.mktemp("ranked"), taxonomy=tiny_run.TAXONOMY)


@pytest.mark.slow
def test_a_threshold_adds_answers_by_rank(ranked):
    network = load(ranked, threshold="0.6")
    assert network.taxonomy.ranks == ("class", "kind") and network.threshold == 0.6
    outputs = network(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8))
    expected = rollup.outputs(outputs["probabilities"], tiny_run.TAXONOMY, 0.6)
    assert outputs.keys() >= expected.keys() == {"least_risk", "sure_rank", "sure_node", "sure_probability"}
    for name, value in expected.items():
        np.testing.assert_array_equal(outputs[name], value)
    texts = served.metadata(network, weights="student", prior="")
    assert json.loads(texts["taxonomy"]) == tiny_run.TAXONOMY.to_dict() and texts["threshold"] == "0.6"
    assert load(ranked).threshold is None and "sure_rank" not in load(ranked)(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.slow
def test_a_taxonomy_file_counts_more_than_what_the_model_holds(ranked, tmp_path):
    (tmp_path / "others.csv").write_text("class,hue\nred,long\nblue,short\ngreen,middle\n")
    assert load(ranked, f"--taxonomy_file={tmp_path / 'others.csv'}").taxonomy.ranks == ("class", "hue")
    assert load(ranked, f"--taxonomy_file={tmp_path / 'gone.csv'}").taxonomy.ranks == ("class", "kind")
    (tmp_path / "others.csv").write_text("class,hue\nred,long\n")
    with pytest.raises(ValueError, match="has no row for the class 'blue' of the data"):
        load(ranked, f"--taxonomy_file={tmp_path / 'others.csv'}")


@pytest.mark.parametrize(
    ("threshold", "prior", "message"),
    [
        ("1", "", "--threshold=1 is neither auto nor a number between 0 and 1"),
        ("sure", "", "--threshold=sure is neither auto nor a number between 0 and 1"),
        ("nan", "", "--threshold=nan is neither auto nor a number between 0 and 1"),
        ("auto", "", "no threshold was chosen for student in .*: run python -m deitlt_tf.evaluate"),
        ("auto", "uniform", "--threshold=auto was chosen without --prior"),
    ],
)
def test_a_threshold_that_cannot_be_is_refused(tmp_path, threshold, prior, message):
    where = {"weights": "student", "head": "mean", "prior": prior}
    with pytest.raises(ValueError, match=message):
        served.threshold_of(threshold, tmp_path, taxonomy=tiny_run.TAXONOMY, **where)
    with pytest.raises(ValueError, match=f"--threshold={threshold}: the classes of .* have no taxonomy. Name one with"):
        served.threshold_of(threshold, tmp_path, taxonomy=None, **where)
    assert served.threshold_of("", tmp_path, taxonomy=None, **where) is None


@pytest.mark.slow
def test_the_threshold_that_evaluate_has_chosen(ranked):
    thresholds.write(ranked, "student", {"mean": 0.8, "cls": 0.7}, target=0.9, taxonomy=tiny_run.TAXONOMY)
    assert load(ranked, threshold="auto").threshold == 0.8
    assert load(ranked, heads="cls", threshold="auto").threshold == 0.7
