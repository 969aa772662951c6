"""import_torch as a user runs it. What reads real PyTorch files is skipped where the extra [torch] is not installed."""

import functools
import json
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers.programs import COLOURS
from helpers.state_dicts import IMPORTED, tensors
from PIL import Image

from deitlt_tf import evaluate, import_torch, models
from deitlt_tf.interop import imports, pretrained, torch_files, torch_weights
from deitlt_tf.models import interface
from deitlt_tf.recipes import command_line
from deitlt_tf.runs.models import load_model, save_model

# Keras' own way of reading a variable for a file, under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture
def lists(tmp_path):
    """A training list without its images: 5, 2 and 9 images of three classes."""
    lines = [
        f"{name}/{i}.jpg {c}\n" for c, (name, n) in enumerate(zip(COLOURS, (5, 2, 9), strict=True)) for i in range(n)
    ]
    (tmp_path / "train.txt").write_text("".join(lines))
    return tmp_path / "train.txt"


@pytest.fixture
def run(program):
    """run(module, *arguments) -> (exit code, all that was printed)."""
    rules = {evaluate: {"from_workdir": True}, import_torch: {"takes": ("checkpoint", "class_order", "to_torch")}}
    return lambda module, *arguments: program(module, *arguments, **rules[module])


@pytest.fixture
def bring(run, monkeypatch):
    """bring(weights, settings, *arguments): the program on a file that holds these, without PyTorch."""

    def call(weights, settings, *arguments):
        monkeypatch.setattr(torch_files, "read", lambda path: (weights, settings))
        return run(import_torch, "--checkpoint=some.pth", "--num_heads=2", *arguments)

    return call


def equal(model: keras.Model, state: dict[str, np.ndarray], order=None) -> bool:
    """Whether a model has these weights, the classes of its heads in this order."""
    order = slice(None) if order is None else order
    heads = ("head.", "head_dist.", "fc.")
    weights = torch_weights.to_torch(model)
    return weights.keys() == state.keys() and all(
        np.array_equal(weights[name], value[order] if name.startswith(heads) else value)
        for name, value in state.items()
    )


def test_a_student_and_its_teacher_share_a_workdir(bring, states, lists, tmp_path):
    folder = tmp_path / "run"
    code, printed = bring(
        {"": states["student"], "_ema": states["ema"]}, {}, f"--workdir={folder}", f"--train_list={lists}"
    )
    assert code == 0, printed
    code, printed = bring({"": states["teacher"]}, {}, f"--workdir={folder}", f"--train_list={lists}")
    assert code == 0, printed
    for file, name in (("student", "student"), ("student_ema", "ema"), ("teacher", "teacher")):
        model, names = load_model(folder / f"{file}.keras")
        assert names == tuple(COLOURS) and equal(model, states[name])
    assert (folder / "class_names.txt").read_text().split() == list(COLOURS)
    results = json.loads((folder / "results.json").read_text())
    assert results["class_counts"] == [5, 2, 9] and set(results["groups"]) == {"shots", "paper"}
    assert results["imported"].keys() == {"student.keras", "student_ema.keras", "teacher.keras"}
    assert results["imported"]["teacher.keras"]["network"] == "resnet8 with a linear classifier"

    recipe = command_line.recipe_of(["evaluate", f"--workdir={folder}"], from_workdir=True)
    assert (recipe.data.name, recipe.data.train_list, recipe.student.method) == ("list", str(lists), "deit_lt")
    for name in ("image_size", "patch_size", "embed_dim", "depth", "num_heads"):
        assert recipe.flags[name] == IMPORTED[name]
    network, view = recipe.teacher.network, recipe.teacher.view
    assert (network.model, network.classifier, view.image_size, view.eval_resize) == ("resnet8", "linear", 32, 0)
    assert network.mean == torch_weights.CIFAR_MEAN
    assert not list(folder.glob(".unfinished-*"))


def test_a_teacher_of_cosines_is_kept_with_the_scale_of_its_loss(bring, tmp_path):
    official_one = models.build(
        "resnet8",
        num_classes=3,
        image_size=32,
        classifier="cosine",
        mean=torch_weights.CIFAR_MEAN,
        std=torch_weights.CIFAR_STD,
    )
    code, printed = bring({"": torch_weights.to_torch(official_one)}, {}, f"--workdir={tmp_path}", "--teacher_scale=20")
    assert code == 0, printed
    teacher, _ = load_model(tmp_path / "teacher.keras")
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(teacher(images), 20 * official_one(images), rtol=1e-3, atol=1e-3)


def test_classes_are_put_in_order_once_and_names_need_no_data(bring, states, lists, tmp_path):
    arguments = (f"--workdir={tmp_path / 'run'}", f"--train_list={lists}", "--class_order=official")
    code, printed = bring({"": states["student"]}, {}, *arguments)
    assert code == 0 and "their order: official, from the training images" in printed
    assert equal(load_model(tmp_path / "run" / "student.keras")[0], states["student"], order=[1, 2, 0])

    (tmp_path / "names.txt").write_text("un\ndeux\ntrois\n")
    arguments = (f"--workdir={tmp_path / 'named'}", f"--class_names_file={tmp_path / 'names.txt'}")
    code, printed = bring({"": states["student"]}, {"class_map": [2, 0, 1], "data_set": "INAT18"}, *arguments)
    assert code == 0 and "their order: class_map in some.pth" in printed
    model, names = load_model(tmp_path / "named" / "student.keras")
    assert names == ("un", "deux", "trois") and equal(model, states["student"], order=[2, 0, 1])


@pytest.mark.slow
def test_without_names_the_classes_are_numbered(bring, states, tmp_path):
    code, printed = bring(
        {"": states["teacher"]}, {}, f"--workdir={tmp_path}", "--teacher_image_size=16", "--teacher_mean=0,0,0"
    )
    assert code == 0, printed
    model, names = load_model(tmp_path / "teacher.keras")
    assert names is None and model.input.shape[1:] == (16, 16, 3) and model.get_layer("normalize").mean == (0, 0, 0)
    assert (tmp_path / "class_names.txt").read_text() == "class 0\nclass 1\nclass 2\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir="], "--workdir is missing"),
        (["--checkpoint="], "--checkpoint is missing: name a PyTorch file"),
        (["--model=deit_tiny"], "some.pth holds deit_base (16 wide, 1 deep, 2 heads), but --model is deit_tiny."),
        (["--class_names_file={tmp}/four.txt"], "some.pth has 3 classes, the data 4."),
        (["--class_names_file={tmp}/none.txt"], "--class_names_file={tmp}/none.txt: there is no such file"),
        (["--class_order={tmp}/four.txt"], "--class_order={tmp}/four.txt is not a file of one whole number a line"),
        (["--class_order=official"], "--class_order=official sorts by training images: name them"),
        (["--num_heads=0"], "the weights do not tell how many attention heads 16 channels have: give --num_heads"),
    ],
)
def test_a_mistake_is_one_sentence(bring, states, tmp_path, arguments, message):
    (tmp_path / "four.txt").write_text("a\nb\nc\nd\n")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    code, printed = bring({"": states["student"]}, {}, f"--workdir={tmp_path / 'run'}", *arguments)
    assert code == 1 and message.format(tmp=tmp_path) in printed
    assert printed.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_teacher_of_another_architecture_is_refused(bring, states, tmp_path):
    code, printed = bring({"": states["teacher"]}, {}, f"--workdir={tmp_path / 'run'}", "--teacher_model=resnet50")
    assert code == 1 and "some.pth holds resnet8 with a linear classifier, but --teacher_model is resnet50." in printed


def test_a_run_is_not_written_over(bring, states, lists, tmp_path):
    (tmp_path / "flags.cfg").write_text("--epochs=3\n")
    code, printed = bring({"": states["student"]}, {}, f"--workdir={tmp_path}")
    assert code == 1 and f"{tmp_path} holds a run (flags.cfg): choose another --workdir." in printed
    assert not (tmp_path / "student.keras").exists()

    folder = tmp_path / "imported"
    assert bring({"": states["student"]}, {}, f"--workdir={folder}")[0] == 0
    code, printed = bring({"": states["teacher"]}, {}, f"--workdir={folder}", f"--train_list={lists}")
    assert code == 1 and f"{folder} holds a network on other classes" in printed


@pytest.mark.parametrize(
    ("settings", "classes", "long_tailed", "refused"),
    [
        ({"data_set": "IMAGENETLT"}, 1000, False, True),
        ({"data_set": "INAT18", "class_map": None}, 8142, False, True),
        ({}, 1000, True, True),
        ({}, 8142, True, True),
        ({}, 1000, False, False),  # torchvision's and timm's
        ({}, 365, True, False),
        ({"data_set": "CIFAR100LT"}, 100, False, False),
    ],
)
def test_an_unknown_order_of_sorted_classes_has_to_be_stated(settings, classes, long_tailed, refused):
    network = SimpleNamespace(num_classes=classes, long_tailed=long_tailed)
    order_of = functools.partial(imports.class_order_of, settings=settings, network=network, counts=None)
    if refused:
        with pytest.raises(ValueError, match="sorted by frequency, in an order that it does not hold"):
            order_of("", path=Path("some.pth"))
    else:
        assert order_of("", path=Path("some.pth")) == (None, "as in the checkpoint")
    assert order_of("as_is", path=Path("some.pth"))[0] is None


def test_without_pytorch_one_sentence_says_how_to_get_it(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, printed = run(import_torch, "--checkpoint=a.pth", f"--workdir={tmp_path}")
    assert code == 1 and 'python -m pip install "deitlt_tf[torch]"' in printed and printed.count("\n") == 1


@pytest.mark.slow
def test_an_imported_workdir_is_evaluated_and_goes_back(torch, run, states, tmp_path):
    """torch.save of a student with EMA and of a teacher -> import -> evaluate -> timm's state dict again."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for name, colour in COLOURS.items():
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + rng.integers(-20, 20, (9, 9, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{i}.png")
    both = {"model": tensors(torch, states["student"]), "model_ema": tensors(torch, states["ema"])}
    torch.save(both, tmp_path / "student.pth")
    teacher = {f"module.{name.replace('fc.', 'linear.')}": v for name, v in tensors(torch, states["teacher"]).items()}
    torch.save({"state_dict": teacher, "arch": "resnet8"}, tmp_path / "teacher.pth.tar")
    folder = tmp_path / "run"
    data = shlex.split(f"--workdir={folder} --data_dir={tmp_path / 'images'} --eval_resize=0")
    for name, heads in (("student.pth", ["--num_heads=2"]), ("teacher.pth.tar", [])):
        code, printed = run(import_torch, f"--checkpoint={tmp_path / name}", *data, *heads)
        assert code == 0, printed
    code, printed = run(evaluate, f"--workdir={folder}")
    assert code == 0, printed
    assert all(row in printed for row in ("student CLS", "student mean", "EMA DIST", "teacher"))

    code, printed = run(import_torch, f"--workdir={folder}", f"--to_torch={tmp_path / 'back.pth'}")
    assert code == 0, printed
    again, _ = torch_files.read(tmp_path / "back.pth")
    assert all(np.array_equal(again[""][name], value) for name, value in states["student"].items())
    assert pretrained.starting_weights(str(tmp_path / "back.pth")).keys() == states["student"].keys()


# ---- the same answers as PyTorch -------------------------------------------------------------------------------------


def both_heads(torch, timm_model, images: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of timm's distilled model, whose own call in inference mode returns their mean. Images: [B, S, S, 3]."""
    with torch.no_grad():
        tokens = timm_model.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
        return {"cls": timm_model.head(tokens[:, 0]).numpy(), "dist": timm_model.head_dist(tokens[:, 1]).numpy()}


def normalised(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and what torchvision's ToTensor and Normalize make of them."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.float32)
    return pixels, ((pixels / 255 - interface.IMAGENET_MEAN) / interface.IMAGENET_STD).astype(np.float32)


def shaken(torch, model):
    """Every weight moved by N(0, 0.02), so that none is zero or one by initialisation; variances grow.

    To either side: a shift of all weights to one side makes a network that magnifies rounding (of Base at 224, torch's
    own float32 logits are then 1e-4 from its float64 ones, else 2e-6).
    """
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = 0.02 * torch.randn_like(value)
                value.add_(noise.abs() if name.endswith("running_var") else noise)
    return model.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # torch's own
@pytest.mark.parametrize("size", ["tiny", "base"])
def test_logits_equal_those_of_timm(torch, tmp_path, size):
    timm = pytest.importorskip("timm")
    reference = shaken(torch, timm.create_model(f"deit_{size}_distilled_patch16_224", num_classes=100))
    torch.save({"model": reference.state_dict()}, tmp_path / "deit.pth")
    states, _ = torch_files.read(tmp_path / "deit.pth")
    network = torch_weights.recognise(states[""])
    assert network.name == f"deit_{size}" and network.options["image_size"] == 224
    pixels, images = normalised(224)
    logits, expected = torch_weights.build(network)(pixels), both_heads(torch, reference, images)
    for head in ("cls", "dist"):
        print(size, head, np.abs(logits[head] - expected[head]).max(), "of", np.abs(expected[head]).max())
        np.testing.assert_allclose(logits[head], expected[head], atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_timm_loads_what_goes_back_and_answers_the_same(torch, run, tmp_path):
    timm = pytest.importorskip("timm")
    keras.utils.set_random_seed(1)
    student = models.build("deit_tiny", num_classes=7, image_size=64, patch_size=16)
    for v in student.variables:
        v.assign_add(0.02 * tf.random.stateless_normal(v.shape, (1, len(v.path))))
    save_model(student, tmp_path / "student.keras", class_names=tuple("abcdefg"))
    code, printed = run(import_torch, f"--workdir={tmp_path}", f"--to_torch={tmp_path / 'timm.pth'}")
    assert code == 0, printed
    reference = timm.create_model("deit_tiny_distilled_patch16_224", num_classes=7, img_size=64).eval()
    reference.load_state_dict(torch.load(tmp_path / "timm.pth", weights_only=True), strict=True)
    pixels, images = normalised(64)
    logits, expected = student(pixels), both_heads(torch, reference, images)
    for head in ("cls", "dist"):
        np.testing.assert_allclose(logits[head], expected[head], atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_logits_equal_those_of_torchvision(torch, tmp_path, name):
    torchvision = pytest.importorskip("torchvision")
    reference = shaken(torch, torchvision.models.get_model(name, num_classes=20))
    torch.save(reference.state_dict(), tmp_path / "resnet.pth")
    states, _ = torch_files.read(tmp_path / "resnet.pth")
    network = torch_weights.recognise(states[""])
    assert network.name == name.removesuffix("_32x4d")
    pixels, images = normalised(224)
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    logits = torch_weights.build(network)(pixels).numpy()
    print(name, np.abs(logits - expected).max(), "of", np.abs(expected).max())
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def test_the_classes_of_a_json_file_of_any_name(tmp_path):
    categories = [{"id": 1, "name": "Fungi"}, {"id": 2, "name": "Aves"}]
    annotations = [{"image_id": image, "category_id": 2 if image else 1} for image in range(3)]
    images = [{"id": image, "file_name": f"{image}.jpg"} for image in range(3)]
    content = {"categories": categories, "annotations": annotations, "images": images}
    (tmp_path / "own.json").write_text(json.dumps(content))
    recipe = command_line.recipe_of(["import", "--data=inat", f"--data_dir={tmp_path}", "--train_list=own.json"])
    train = imports.training_data(recipe.data.name, **recipe.data.source())
    assert train.class_names == ("Fungi", "Aves") and train.labels.tolist() == [0, 1, 1]
