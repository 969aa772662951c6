"""The programs as a user runs them, on tiny images that the tests write: one whole run, and what goes wrong."""

import json
import re
import shlex
import shutil

import keras
import onnxruntime
import pytest
from helpers import GOLDEN, ROOT
from helpers.programs import SMALL, picture, snapshot
from helpers.tiny_models import other_cnn
from PIL import Image

from deitlt_tf import evaluate, to_litert, to_onnx, to_saved_model, train, train_teacher
from deitlt_tf.demo import __main__ as demo
from deitlt_tf.recipes import command_line
from deitlt_tf.report import __main__ as report
from deitlt_tf.runs.data import load_splits
from deitlt_tf.serving.served import images_to_check, load_served


def table(printed: str) -> set[tuple[str, ...]]:
    """The rows of the printed tables, whatever the width of their columns; the plain ViT's left out."""
    rows = (tuple(line.split()) for line in printed.splitlines() if "|" not in line)
    return {row for row in rows if row and row[0] in ("student", "EMA", "best", "teacher")}


def test_a_whole_run_killed_and_resumed_and_evaluated(run, images, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    command = [train, *SMALL, f"--data_dir={images}", f"--workdir={workdir}", "--checkpoint_seconds=0"]
    code, printed = run(*command)
    assert code == 0, printed
    assert (
        "21 training images" not in printed and "23 training images in 3 classes (12 to 5), 12 for testing" in printed
    )
    for name in (
        "student CLS",
        "student DIST",
        "student mean",
        "EMA mean",
        "teacher",
        "shots: head",
        "rank: head",
    ):
        assert name in printed
    for name in (
        *("flags.cfg", "metrics.jsonl", "results.json", "class_names.txt", "data.json", "teacher/data.json"),
        *("student.keras", "student_ema.keras", "teacher.keras", "teacher/teacher.keras"),
    ):
        assert (workdir / name).is_file(), name
    assert not list(workdir.rglob(".unfinished-*"))
    assert len(list((workdir / "checkpoints").iterdir())) == 2
    results = json.loads((workdir / "results.json").read_text())
    for weights in ("raw", "ema"):
        for convention in ("shots", "paper"):
            for head in ("cls", "dist", "mean"):
                assert set(results[weights][convention][head]) == {"overall", "balanced", "head", "mid", "tail"}
    assert (workdir / "class_names.txt").read_text().split() == ["blue", "green", "red"]
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert {"loss", "cls_loss", "dist_loss", "agreement", "cosine", "lr"} <= set(lines[0])
    assert keras.models.load_model(workdir / "teacher.keras").get_layer("fc").scale == 30  # LDAM's: logits, not cosines

    # Evaluated again from the workdir alone: the same table.
    code, again = run(evaluate, f"--workdir={workdir}")
    assert code == 0 and table(again) and table(again) <= table(printed), again

    # Thrown back to the last checkpoint but one, and that one cut in half: the run goes on and ends the same.
    before = snapshot(workdir)
    newest = sorted((workdir / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    for name in ("student.keras", "student_ema.keras", "results.json"):
        (workdir / name).unlink()
    code, printed = run(*command)
    assert code == 0, printed
    assert f"checkpoint {newest} is damaged" in printed and "going on from step 5 of 6" in printed
    assert "teacher.keras is there, from the same recipe" in printed
    assert snapshot(workdir) == before

    # Another recipe in the same place is refused, and nothing changes.
    code, printed = run(*command, "--lr=2e-3")
    assert code == 1 and "holds a run of another recipe: --lr is '0.001' there and '0.002' here" in printed
    assert snapshot(workdir) == before

    # A teacher of other classes is refused.
    shutil.move(images / "train" / "red", images / "train" / "rose")
    shutil.move(images / "test" / "red", images / "test" / "rose")
    code, printed = run(
        train, *SMALL, f"--data_dir={images}", f"--workdir={tmp_path / 'other'}", f"--teacher={workdir}"
    )
    assert code == 1 and "class 2 is 'red' there, 'rose' here" in printed
    assert not (tmp_path / "other" / "student.keras").exists()


@pytest.mark.slow
def test_nan_loss_stops_names_the_step_and_keeps_the_checkpoint(run, images, tmp_path):
    workdir = tmp_path / "run"
    arguments = [*SMALL, f"--data_dir={images}", f"--workdir={workdir}", "--checkpoint_seconds=0", "--method=vit"]
    code, printed = run(train, *arguments, "--lr=1e30", "--epochs=4")
    assert code == 1
    assert "loss is " in printed and "at step " in printed and "the last good checkpoint is step" in printed
    assert not (workdir / "student.keras").exists() and list((workdir / "checkpoints").glob("*.npz"))


@pytest.mark.slow
def test_the_plain_vit_beside_ends_the_same_after_a_kill(run, images, tmp_path):
    workdir = tmp_path / "run"
    command = [train, *SMALL, f"--data_dir={images}", f"--workdir={workdir}", "--checkpoint_seconds=0", "--baseline"]
    code, printed = run(*command)
    assert code == 0 and "\nViT " in printed, printed
    before = snapshot(workdir)
    sorted((workdir / "vit" / "checkpoints").iterdir())[-1].unlink()
    (workdir / "vit" / "student.keras").unlink()
    code, printed = run(*command)
    assert code == 0 and "ViT: going on from step 5 of 6" in printed
    assert snapshot(workdir) == before
    assert {"vit", "raw", "ema", "teacher"} <= json.loads((workdir / "results.json").read_text()).keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of LiteRT's converter and of Keras
def test_a_guided_student_with_a_stem_ends_the_same_after_a_kill_and_is_reported_and_exported(
    run, program, images, tmp_path
):
    workdir = tmp_path / "run"
    command = [train, *SMALL, "--stem=conv", "--guidance=1", "--depth=2", "--epochs=3", "--reweight_epoch=2"]
    command += [f"--data_dir={images}", f"--workdir={workdir}", "--checkpoint_seconds=0"]
    code, printed = run(*command)
    assert code == 0, printed
    before = snapshot(workdir)
    distances = [json.loads(line)["guidance"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert len(distances) == 3 and min(distances) > 0
    sorted((workdir / "checkpoints").iterdir())[-1].unlink()
    (workdir / "student.keras").unlink()
    code, printed = run(*command)
    assert code == 0 and "going on from step 8 of 9" in printed, printed
    assert snapshot(workdir) == before
    report_takes = ("compare", "probe_images")
    for program_, takes, more in (
        (report, report_takes, ["--probe_images=4"]),
        (to_onnx, to_onnx.TAKES, ["--quantize=int8"]),
        (to_litert, to_litert.TAKES, ["--quantize=int8"]),
        (to_saved_model, to_saved_model.TAKES, []),
    ):
        code, printed = program(program_, f"--workdir={workdir}", *more, from_workdir=True, takes=takes)
        assert code == 0, printed
    files = {path.name for path in workdir.iterdir()}
    assert files >= {"student.onnx", "student.int8.onnx", "student.tflite", "student.int8.tflite", "report.html"}


@pytest.mark.slow
def test_a_teacher_of_clean_views_is_asked_once_and_a_plain_vit_is_reweighted(run, images, tmp_path):
    arguments = [*SMALL, f"--data_dir={images}", "--randaugment=rand-m9-mstd0.5-inc1", "--teacher_loss=ce"]
    clean = [*arguments, "--teacher_sees=clean", f"--teacher_labels={tmp_path / 'labels'}"]
    code, printed = run(train, *clean, f"--workdir={tmp_path / 'asks'}", "--baseline")
    assert code == 0 and "\nViT " in printed, printed
    # The classifier is what the loss needs: for cross-entropy a linear one.
    fc = keras.models.load_model(tmp_path / "asks" / "teacher.keras").get_layer("fc")
    assert isinstance(fc, keras.layers.Dense)
    again = [*clean, f"--teacher={tmp_path / 'asks'}", f"--workdir={tmp_path / 'reads'}"]
    code, printed = run(train, *again)
    assert code == 0, printed
    one, other = (snapshot(tmp_path / name) for name in ("asks", "reads"))
    assert {k: one[k] for k in other} == other and "student.keras 0" in other
    code, printed = run(train, *arguments, "--method=vit_drw", f"--workdir={tmp_path / 'drw'}")
    assert code == 0 and snapshot(tmp_path / "drw")["metrics.jsonl"] != one["vit/metrics.jsonl"], printed
    code, printed = run(train, *clean, "--distillation=soft", f"--workdir={tmp_path / 'soft'}")
    assert code == 1 and "it needs --distillation=hard" in printed and not (tmp_path / "soft").exists()


@pytest.mark.slow
def test_validation_split_chooses_the_weights(run, images, tmp_path):
    shutil.copytree(images / "test", images / "val")
    workdir = tmp_path / "run"
    code, printed = run(train, *SMALL, f"--data_dir={images}", f"--workdir={workdir}", "--method=vit")
    assert code == 0, printed
    results = json.loads((workdir / "results.json").read_text())
    best = results["weights"]["student_best"]
    assert "best" in results and best["kind"] in ("raw", "ema") and "\nbest " in printed
    assert results["student.keras"] == "the last weights" and results["weights"]["student"] == {
        "step": 6,
        "kind": "raw",
    }
    code, again = run(evaluate, f"--workdir={workdir}")
    assert code == 0 and table(again) and table(again) <= table(printed), again


@pytest.mark.slow
def test_a_teacher_of_another_kind_and_input_size_goes_through_every_program(run, program, images, tmp_path):
    """As docs/how_to/teacher.md has it: a network of another library, here of 24 pixels for students of 8."""
    path, workdir = tmp_path / "theirs.keras", tmp_path / "run"
    keras.utils.set_random_seed(0)
    other_cnn(24).save(path)
    command = [train, *SMALL, f"--data_dir={images}", f"--teacher={path}", f"--workdir={workdir}"]
    code, printed = run(*command, "--teacher_eval_resize=20")
    assert code == 1 and "--teacher_eval_resize=20 is smaller than the input of other, 24 pixels" in printed
    assert "student:" not in printed and not (workdir / "checkpoints").exists()
    code, printed = run(*command, "--teacher_eval_resize=30")  # mended in the same folder
    assert code == 0 and "\nteacher " in printed, printed
    code, again = run(evaluate, f"--workdir={workdir}")
    assert code == 0 and table(again) and table(again) <= table(printed), again
    code, again = run(evaluate, f"--workdir={workdir}", "--teacher_eval_resize=20")
    assert code == 1 and "--teacher_eval_resize=20 is smaller than the input of other, 24 pixels" in again

    code, printed = program(
        report, f"--workdir={workdir}", "--probe_images=4", from_workdir=True, takes=("compare", "probe_images")
    )
    assert code == 0 and "teacher" in json.loads((workdir / "report.json").read_text())["table"]["paper"], printed
    recipe = command_line.recipe_of(["export", f"--workdir={workdir}"], from_workdir=True)
    teacher = load_served(recipe, weights="teacher")
    assert (teacher.image_size, teacher.eval_resize) == (24, 30)
    to_check = images_to_check(recipe, teacher, weights="teacher", check_images=-1)
    assert next(iter(to_check.batches))[0].shape[1:] == (24, 24, 3)
    assert load_served(recipe, weights="student", prior="uniform").adjustment is not None
    with pytest.raises(ValueError, match=r"no counterpart of layer 'mobile' \(Functional\)\. The exports to_litert"):
        demo.contents(recipe, weights="teacher", max_pixels=10**6)


def test_damaged_images_and_bombs_are_named_or_left_out(run, images, tmp_path):
    victim, bomb = images / "train" / "blue" / "1.jpg", images / "test" / "green" / "0.png"
    victim.write_bytes(victim.read_bytes()[:-200])
    Image.new("RGB", (200, 100)).save(bomb)
    workdir = tmp_path / "run"
    arguments = [*SMALL, f"--data_dir={images}", f"--workdir={workdir}", "--method=vit", "--max_megapixels=0.01"]
    code, printed = run(train, *arguments)
    assert code == 1 and str(victim) in printed and "--skip_bad_images" in printed
    assert not (workdir / "student.keras").exists()
    code, printed = run(train, *arguments, "--max_megapixels=.00001", f"--workdir={tmp_path / 'third'}")
    assert code == 1 and "pixels are more than the limit of 10 (--max_megapixels)" in printed

    recipe = command_line.recipe_of(["train", *arguments, "--skip_bad_images"])
    splits = load_splits(folder=tmp_path / "second", **recipe.data.loading())
    assert (len(splits.train), len(splits.test)) == (22, 11)
    report = (tmp_path / "second" / "skipped_images.txt").read_text()
    assert len(report.splitlines()) == 2 and str(victim) in report
    assert f"{bomb}: 200 x 100 pixels are more than the limit of 10000 (`max_pixels`)" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir="], "--workdir is missing"),
        (["--epohcs=3"], "Unknown command line flag 'epohcs'. Did you mean: epochs"),
        (["--epochs=many"], "--epochs=many"),
        (["--data=floder"], "floder"),
        (["--data_dir={tmp}/nowhere"], "{tmp}/nowhere is not a folder: it should hold train/ and test/"),
        (["--flagfile={tmp}/no.cfg"], "--flagfile={tmp}/no.cfg: there is no such file"),
        (["--flagfile=digit_lt.cfg"], "no packaged recipe of that name; did you mean digits_lt.cfg?"),
        (["--top_k=3"], "--top_k is a flag of another command: this one would ignore it."),
        (["--imbalance=0.5"], "--imbalance=0.5 is not a number of at least 1. rho:"),
        (["--flagfile={tmp}/typo.cfg"], "{tmp}/typo.cfg:2: unknown flag --epohcs. Did you mean --epochs?"),
        (["--teacher={tmp}/none.keras"], "--teacher={tmp}/none.keras: there is no"),
        (["--randaugment=rand-m9"], "--randaugment=rand-m9: only"),
        (["--model=deit_huge"], "--model=deit_huge is unknown: choose one of deit_nano, deit_tiny"),
        (["--patch_size=3"], "not a multiple of --patch_size=3"),
        (["--batch_size=7", "--accumulation=2"], "--batch_size=7 does not split evenly over 1 devices with 2 parts"),
        (["--teacher_batch_size=0"], "--teacher_batch_size=0 is not a whole number of at least 1"),
        (["--mean=a,b,c"], "--mean=a,b,c is not a list of numbers"),
        (["--workdir={tmp}/bad.txt"], "{tmp}/bad.txt: File exists. A file stands where a folder is needed"),
        (["--beta=1"], "--beta=1 is not a number of at least 0 and below 1."),
        (
            ["--method=vit_drw", "--reweight_epoch=9"],
            "--reweight_epoch=9 is not below --epochs=2: the loss would never",
        ),
        (["--data=list", "--train_list={tmp}/bad.txt", "--test_list={tmp}/bad.txt"], "{tmp}/bad.txt:2"),
        (["--data=list", "--train_list={tmp}/leaves.txt", "--test_list={tmp}/leaves.txt"], "leaves the image root"),
    ],
)
def test_a_mistake_is_one_sentence(run, images, tmp_path, arguments, message):
    (tmp_path / "typo.cfg").write_text("# a recipe\n--epohcs=3\n")
    (tmp_path / "bad.txt").write_text("a.png 0\nb.png\n")
    (tmp_path / "leaves.txt").write_text("../a.png 0\n")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    plain = [] if "--teacher" in message else ["--method=vit"]  # a plain ViT would not ask for a teacher
    code, printed = run(train, *SMALL, f"--data_dir={images}", f"--workdir={tmp_path / 'run'}", *plain, *arguments)
    assert code == 1 and message.format(tmp=tmp_path) in printed, printed
    assert printed.count("\n") <= 3 and "Traceback" not in printed
    assert not list(tmp_path.rglob("*.keras"))


@pytest.mark.slow
def test_a_run_is_evaluated_from_any_folder_and_other_data_are_noted(run, images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed = run(train, *SMALL, "--data_dir=images", "--workdir=run", "--method=vit")
    assert code == 0, printed
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, again = run(evaluate, "--workdir=../run")
    assert code == 0 and table(again) <= table(printed) and "note" not in again, again
    picture((230, 10, 20), 9).save(images / "test" / "red" / "new.png")
    code, again = run(evaluate, "--workdir=../run")
    assert code == 0 and "note: these are not the data of ../run: the test split had 12 images and has 13" in again
    before = snapshot(tmp_path / "run")
    code, again = run(train, f"--flagfile={tmp_path / 'run' / 'flags.cfg'}")
    assert code == 1 and "holds a run on other data: the test split had 12 images and has 13 images now" in again
    assert snapshot(tmp_path / "run") == before


def test_train_teacher_refuses_what_train_refuses_of_the_teacher(run, images, tmp_path):
    arguments = [*SMALL, f"--data_dir={images}", f"--workdir={tmp_path / 'run'}", "--patch_size=3", "--epochs=1"]
    code, printed = run(train_teacher, *arguments, "--teacher_reweight_epoch=160")
    assert code == 1 and "--teacher_reweight_epoch=160 is not below --teacher_epochs=1" in printed
    code, printed = run(train_teacher, *arguments, "--teacher_eval_resize=4")
    assert code == 1 and "--teacher_eval_resize=4 is smaller than --teacher_image_size=8" in printed
    assert not (tmp_path / "run").exists()
    code, printed = run(train_teacher, *arguments)  # mistakes of a student are not looked at
    assert code == 0, printed
    picture((230, 10, 20), 9).save(images / "train" / "red" / "new.png")
    code, printed = run(train_teacher, *arguments)
    assert code == 1 and "the train split had 23 images and has 24 images now" in printed
    assert "--teacher_workdir" in printed


def test_empty_class_folder_is_named(run, images, tmp_path):
    (images / "train" / "amber").mkdir()
    code, printed = run(train, *SMALL, f"--data_dir={images}", f"--workdir={tmp_path / 'run'}")
    assert code == 1 and f"{images / 'train' / 'amber'} holds no images" in printed
    assert not (tmp_path / "run").exists()


def test_evaluate_and_train_teacher_ask_for_their_workdir(run, tmp_path):
    assert run(evaluate)[0] == 1
    code, printed = run(evaluate, f"--workdir={tmp_path}")
    assert code == 1 and "flags.cfg" in printed
    code, printed = run(train_teacher)
    assert code == 1 and "--workdir is missing" in printed


@pytest.mark.slow
def test_places_lt_runs_through_all_programs(run, tmp_path):
    """The first lines of every class of the real lists, with stand-in JPEGs, through the real recipe made small."""
    lists = GOLDEN / "places_lt"
    root = tmp_path / "places"
    root.mkdir()
    for path in lists.iterdir():
        shutil.copy(path, root)
        for line in path.read_text().splitlines():
            name, label = line.rsplit(" ", 1)
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            picture((int(label) % 256, 100, 200), int(label), size=(32, 40)).save(root / name)
    small = shlex.split("""
        --model=deit_nano --embed_dim=16 --depth=1 --num_heads=2 --image_size=32 --eval_resize=36 --epochs=1
        --batch_size=128 --accumulation=1 --eval_every=1 --teacher_model=resnet8
        --teacher_image_size=32 --teacher_eval_resize=36
        --teacher_epochs=1 --teacher_batch_size=128 --reweight_epoch=0 --teacher_reweight_epoch=-1 --teacher_rho_steps=
    """)
    recipe = f"--flagfile={ROOT / 'configs' / 'places_lt.cfg'}"
    arguments = [recipe, *small, f"--data_dir={root}", f"--workdir={tmp_path / 'run'}"]
    code, printed = run(train_teacher, *arguments)
    assert code == 0, printed
    assert "730 training images in 365 classes (2 to 2), 365 for validation, 365 for testing" in printed
    code, printed = run(train, *arguments)
    assert code == 0, printed
    assert "teacher.keras is there, from the same recipe" in printed and "best mean" in printed
    assert (tmp_path / "run" / "class_names.txt").read_text().splitlines()[0] == "a/airfield"
    code, printed = run(evaluate, f"--workdir={tmp_path / 'run'}")
    assert code == 0 and "student mean" in printed


CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@pytest.mark.slow
def test_a_taxonomy_goes_through_every_program(run, program, tmp_path):
    """Pictures under the names of CIFAR-10's classes, and the taxonomy of the package: train to export and demo."""
    images, workdir = tmp_path / "images", tmp_path / "run"
    for split, most in (("train", 8), ("val", 2), ("test", 3)):
        for label, name in enumerate(CIFAR):
            (images / split / name).mkdir(parents=True)
            for i in range(max(2, most - label) if split == "train" else most):
                picture((25 * label, 250 - 25 * label, 100), i).save(images / split / name / f"{i}.png")
    arguments = [*SMALL, f"--data_dir={images}", f"--workdir={workdir}", "--taxonomy_file=cifar10_taxonomy.csv"]
    code, printed = run(train, *arguments)
    assert code == 0 and "taxonomy: 10 class, 7 group, 2 kind" in printed, printed
    assert "teacher, kind" in printed and "student DIST, group" in printed and "EMA mean, uniformly wrong" in printed
    results = json.loads((workdir / "results.json").read_text())["taxonomy"]
    assert results["ranks"] == ["class", "group", "kind"] and results["names"]["group"] == 7
    assert results["models"].keys() == {"raw", "ema", "best", "teacher"}
    for heads in results["models"].values():
        for row in heads.values():
            values = [row["accuracy"][rank]["paper"]["overall"]["value"] for rank in results["ranks"]]
            assert values == sorted(values)

    # Evaluated without the file of the taxonomy: the models hold it.
    flags = workdir / "flags.cfg"
    flags.write_text(re.sub(r"--taxonomy_file=.*", f"--taxonomy_file={tmp_path}/gone.csv", flags.read_text()))
    code, again = program(evaluate, f"--workdir={workdir}", "--sure=0.05", from_workdir=True, takes=("sure",))
    assert code == 0 and "the taxonomy is that of the models" in again and table(printed) <= table(again), again
    assert "student mean, least risk, group" in again and "at which 5 % of the answers are right" in again
    chosen = json.loads((workdir / "thresholds.json").read_text())
    assert chosen.keys() == {"student", "student_ema", "student_best", "teacher"}

    takes = ("compare", "probe_images", "sure")
    code, printed = program(
        report, f"--workdir={workdir}", "--probe_images=4", "--sure=0.05", from_workdir=True, takes=takes
    )
    numbers = json.loads((workdir / "report.json").read_text())["taxonomy"]
    assert code == 0 and numbers["rollup"]["threshold"] == chosen["student"]["heads"]["mean"], printed
    assert numbers["confused"]["rank"] == "group" and numbers["confused"]["pairs"]
    page = (workdir / "report.html").read_text()
    for words in ("Ranks of the taxonomy", "road vehicle", "7 group", "least risk", "uniformly wrong"):
        assert words in page, words

    shutil.copytree(workdir, tmp_path / "other")
    compare = f"--compare={workdir},{tmp_path / 'other'}"
    code, printed = program(report, f"--workdir={workdir}", compare, from_workdir=True, takes=takes)
    numbers = json.loads((workdir / "comparison.json").read_text())["taxonomy"]
    assert code == 0 and numbers["differences"]["other"]["kind"]["mean"]["paper"]["overall"]["value"] == 0, printed

    exports = (f"--workdir={workdir}", f"--out={tmp_path / 'm.onnx'}")
    arguments = (*exports, "--threshold=auto", "--fp16", "--quantize=int8")
    code, printed = program(to_onnx, *arguments, from_workdir=True, takes=to_onnx.TAKES)
    assert code == 0, printed
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["taxonomy"])["nodes"][2] == ["vehicle", "animal"]
    assert json.loads(facts["threshold"]) == chosen["student"]["heads"]["mean"]
    assert {"least_risk", "sure_rank", "sure_node", "sure_probability"} < {x.name for x in session.get_outputs()}
    code, printed = program(to_onnx, *exports, "--threshold=2", from_workdir=True, takes=to_onnx.TAKES)
    assert code == 1 and "--threshold=2 is neither auto nor a number between 0 and 1" in printed

    recipe = command_line.recipe_of(["demo", f"--workdir={workdir}"], from_workdir=True)
    facts = json.loads(demo.contents(recipe, weights="student", max_pixels=10**6)["/facts.json"].body)
    assert facts["taxonomy"]["ranks"] == ["class", "group", "kind"]
    assert facts["threshold"] == chosen["student"]["heads"]["mean"]


def test_places_lt_without_its_data_says_what_belongs_where(run, tmp_path):
    recipe = f"--flagfile={ROOT / 'configs' / 'places_lt.cfg'}"
    code, printed = run(train, recipe, f"--data_dir={tmp_path / 'places'}", f"--workdir={tmp_path / 'run'}")
    assert code == 1
    assert f"{tmp_path / 'places'} is not a folder: it should hold Places_LT_train.txt" in printed
    assert not (tmp_path / "run").exists()
