"""What the recipe alone can tell is refused before anything is trained, and no recipe of ours is refused."""

import ast
import re
import shlex

import pytest
from helpers import ROOT

from deitlt_tf import models
from deitlt_tf.data import randaugment
from deitlt_tf.interop import backbones
from deitlt_tf.models import efficientnet, vit
from deitlt_tf.recipes import checks
from deitlt_tf.recipes.command_line import RECIPES, recipe_of
from deitlt_tf.recipes.flags import FLAGS

# A command that trains or looks at data, and its flags; a value with blanks is in double quotes.
COMMAND = re.compile(r'python -m deitlt_tf\.(train|train_teacher|inspect_data) ((?: *--(?:"[^"]*"|[^\s`\[\]"])+)+)')

# Of all other programs the names of the flags are checked.
OTHER_COMMAND = re.compile(r"python -m deitlt_tf\.(?!train|inspect_data)(\w+)((?: *--[^\s`]+)+)")


def mistakes(*arguments: str, **roles: bool) -> list[str]:
    return [*checks.mistakes(recipe_of(["test", *arguments]), **roles)]


def test_the_defaults_and_all_recipes_can_be_trained():
    assert mistakes() == mistakes(student=False, teacher=True) == []
    for path in RECIPES.glob("*.cfg"):
        assert mistakes(f"--flagfile={path}", "--init=keras_hub:none", "--teacher_init=", teacher=True) == [], path


def test_every_command_in_the_documentation_can_be_trained():
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("configs/*.cfg")]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    for path in ROOT.glob("deitlt_tf/**/*.py"):
        texts[path] = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    commands, others = [], 0
    for path, text in texts.items():
        text = re.sub(r"\\\n[\s#]*", " ", text)
        commands += COMMAND.findall(text)
        for program, arguments in OTHER_COMMAND.findall(text):
            names = re.findall(r"--(\w+)", arguments)
            others += len(names)
            assert {*names} <= {*FLAGS, "flagfile", "help", "helpfull"}, (path, program, arguments)
    assert len(commands) > 30 and others > 100
    for command, text in commands:
        arguments = [x for x in shlex.split(text) if not re.match(r"--(help|flagfile=(mine|runs))", x)]
        alone = command == "train_teacher"
        sentences = mistakes(*arguments, student=not alone, teacher=alone or None)
        assert [x for x in sentences if "there is no" not in x] == [], (command, arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=deit_huge"], "--model=deit_huge is unknown: choose one of deit_nano, "),
        (["--model=vit_small"], "--model=vit_small is unknown"),
        (["--model=resnet32", "--method=vit"], "--model=resnet32 is unknown"),
        (["--num_heads=5"], "--num_heads=5 does not divide --embed_dim=768"),
        (["--model=deit_tiny", "--embed_dim=100"], "--num_heads=3 does not divide --embed_dim=100"),
        (["--stem=conv", "--patch_size=14"], "--stem=conv halves the image several times: --patch_size=14"),
        (
            ["--stem=conv", "--embed_dim=84"],
            "--stem=conv begins with embed_dim * 2 / patch_size channels: --embed_dim=84",
        ),
        (["--guidance=2", "--teacher_labels=x"], "--guidance=2 compares the student with the teacher's feature maps"),
        (["--guidance=2", "--teacher_sees=clean"], "--guidance=2 needs the teacher to see the student's view"),
        (["--guidance=2", "--depth=1"], "--guidance=2 needs --depth of 2 or more"),
        (["--patch_size=5"], "--image_size=224 is not a multiple of --patch_size=5"),
        (["--eval_resize=200"], "--eval_resize=200 is smaller than --image_size=224"),
        (["--teacher_eval_resize=16"], "--teacher_eval_resize=16 is smaller than --teacher_image_size=32"),
        (["--accumulation=3"], "--batch_size=1024 does not split evenly over 1 devices with 3 parts"),
        (
            ["--strategy=mirrored", "--logical_cpus=3", "--teacher_batch_size=9"],
            "--batch_size=1024 does not split evenly over 3 devices",
        ),
        (
            ["--strategy=mirrored", "--logical_cpus=2", "--teacher_batch_size=7"],
            "--teacher_batch_size=7 does not split evenly over 2 devices",
        ),
        (["--init=none.keras"], "--init=none.keras: there is no such file"),
        (["--teacher_init=none.keras"], "--teacher_init=none.keras: there is no such file"),
        (
            ["--teacher_init=pretrained:resnet50"],
            "--teacher_init=pretrained:resnet50: there are no such weights. Choose efficientnet_lite0 or",
        ),
        (
            ["--teacher_init=pretrained:efficientnet_lite1", "--teacher_model=efficientnet_lite0"],
            "--teacher_init=pretrained:efficientnet_lite1 does not fit --teacher_model=efficientnet_lite0: set ",
        ),
        (
            ["--teacher_init=pretrained:efficientnet_lite1", "--teacher_model=efficientnet_lite1"],
            "--teacher_init=pretrained:efficientnet_lite1 needs --teacher_mean=0.498039,0.498039,0.498039 and",
        ),
        (["--method=quick", "--backbone=resnet8"], "--backbone=resnet8 is unknown: choose one of efficientnet_lite0"),
        (["--method=quick", "--strategy=multi_worker"], "--strategy=multi_worker: --method=quick runs on one device"),
        (["--teacher=none.keras"], "--teacher=none.keras: there is no none.keras"),
        (["--mean=1,2"], "--mean=1,2 has to be three numbers"),
        (["--std=1,2,0"], "--std=1,2,0 has to be three numbers, each above 0"),
        (["--teacher_std=1,2,-1"], "--teacher_std=1,2,-1 has to be three numbers, each above 0"),
        (["--randaugment=rand-x9"], "--randaugment=rand-x9: only rand-...-inc1 is offered"),
        (["--teacher_randaugment=rand-m9"], "--teacher_randaugment=rand-m9: only rand-...-inc1 is offered"),
        (["--teacher_second_randaugment=x"], "--teacher_second_randaugment=x: only rand-...-inc1 is offered"),
        (["--teacher_labels=x", "--distillation=soft"], "--teacher_labels holds a teacher's classes"),
        (["--teacher_labels=x", "--method=vit"], "--teacher_labels holds a teacher's classes"),
        (["--teacher_model=resnet33"], "--teacher_model=resnet33 is unknown: choose one of resnet8"),
        (["--teacher_loss=mdcs", "--teacher_reweight_epoch=-1"], "--teacher_loss=mdcs trains three experts"),
        (["--teacher_model=mdcs_resnet8"], "--teacher_loss=ldam does not go with --teacher_model=mdcs_resnet8"),
        (
            ["--teacher_loss=mdcs", "--teacher_model=mdcs_resnet8"],
            "--teacher_reweight_epoch=160 does not go with --teacher_loss=mdcs",
        ),
    ],
)
def test_a_mistake_is_named_with_its_flag(arguments, message):
    sentences = mistakes(*arguments)
    assert len(sentences) == 1 and sentences[0].startswith(message), sentences
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        checks.check(recipe_of(["test", *arguments]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs=5"], "--reweight_epoch=1100 is not below --epochs=5: the loss of DIST would never .*, and mixing"),
        (["--epochs=300", "--flagfile=imagenet_lt.cfg", "--epochs=700"], "Set --reweight_epoch=600, the same share"),
        (["--flagfile=cifar10_lt.cfg", "--epochs=300"], "Set --reweight_epoch=275, .* or -1 for never"),
        (["--reweight_epoch=1200"], "--reweight_epoch=1200 is not below .*Set --reweight_epoch=1080"),
        (["--method=vit_drw", "--epochs=1"], "the loss would never be .*Set --reweight_epoch=0"),
        (["--teacher_epochs=20", "--teacher_drops="], "Set --teacher_reweight_epoch=16, the same share .*-1 for never"),
        (
            ["--teacher_epochs=170", "--teacher_reweight_epoch=-1"],
            "epoch 180 is not below .*=170, .*Set --teacher_drops=136:0.01,153:0.0001, .* or --teacher_drop",
        ),
        (["--teacher_epochs=1", "--teacher_reweight_epoch=0"], "would never fall there. Set --teacher_drops= for none"),
        (
            ["--flagfile=teacher_imagenet.cfg", "--teacher_epochs=45", "--teacher_reweight_epoch=30"],
            "epoch 60 is not below .*radius of SAM .*Set --teacher_rho_steps=2:0.1,30:0.5",
        ),
    ],
)
def test_what_is_set_for_an_epoch_that_never_comes_is_refused_with_what_to_set(arguments, message):
    [sentence] = mistakes(*arguments)
    assert re.search(message, sentence), sentence


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs=5", "--reweight_epoch=-1"],
        ["--epochs=5", "--method=vit"],  # these methods have no K
        ["--epochs=5", "--method=deit"],
        ["--teacher_epochs=5", "--teacher_reweight_epoch=-1", "--teacher_schedule=cosine"],  # without drops
        ["--teacher_epochs=5", "--method=vit"],
        ["--init=keras_hub:vit_base"],
        ["--flagfile=teacher_pretrained.cfg"],
        ["--method=quick", "--patch_size=15", "--model=none"],  # the flags of a ViT
        ["--eval_resize=0"],
        ["--guidance=2", "--depth=1", "--method=vit"],
        ["--randaugment=rand-m9-n3-mstd0.5-p0.7-inc1"],
    ],
)
def test_what_acts_on_nothing_is_not_complained_of(arguments):
    assert mistakes(*arguments) == []


def test_only_what_is_still_to_begin_is_looked_at(tmp_path):
    wrong = ("--epochs=5", "--teacher_epochs=5", "--teacher_drops=")
    assert [x.partition("=")[0] for x in mistakes(*wrong)] == ["--reweight_epoch", "--teacher_reweight_epoch"]
    assert [x.partition("=")[0] for x in mistakes(*wrong, teacher=False)] == ["--reweight_epoch"]
    assert [x.partition("=")[0] for x in mistakes(*wrong, student=False)] == ["--teacher_reweight_epoch"]
    assert mistakes(*wrong, student=False, teacher=False) == []
    (tmp_path / "teacher.keras").touch()
    for path in (tmp_path, tmp_path / "teacher.keras"):
        assert [x.partition("=")[0] for x in mistakes(*wrong, f"--teacher={path}")] == ["--reweight_epoch"]
        assert mistakes(f"--init={tmp_path / 'teacher.keras'}") == []


def test_the_tables_are_those_of_the_models():
    assert {size: (width, heads) for size, (width, _, heads) in vit.SIZES.items()} == checks.STUDENTS
    students = {f"{kind}_{size}" for size in checks.STUDENTS for kind in ("deit", "vit")}
    assert models.MODELS.keys() == students | {*checks.TEACHERS}


@pytest.mark.parametrize(
    "text",
    [
        *("rand-m9-mstd0.5-inc1", "rand-m10-inc1", "rand-inc1", "rand-inc1-n3", "rand-m9-mstd0.5-n1-p0.5-inc1"),
        *("rand-m9", "rand-x9-inc1", "rand-x9", "augmix-m3-inc1", "rand", "rand-m-inc1", "inc1", "rand-inc12"),
    ],
)
def test_the_notation_of_randaugment_is_that_of_its_reader(text):
    try:
        known = randaugment.parse(text) is not None
    except ValueError:
        known = False
    assert bool(checks.RANDAUGMENT.fullmatch(text)) == known


@pytest.mark.parametrize("text", ["rand-m1.2.3-inc1", "rand-n0-inc1", "rand-p2-inc1", "rand-n1.5-inc1"])
def test_numbers_that_randaugment_cannot_use_are_refused(text):
    assert not checks.RANDAUGMENT.fullmatch(text)


def test_the_backbones_are_those_that_have_weights():
    assert {*checks.BACKBONES} == {*backbones.PACKAGES} <= {*checks.TEACHERS}
    assert (efficientnet.MEAN[0], efficientnet.STD[0]) == (checks.BACKBONE_MEAN, checks.BACKBONE_STD)


def test_a_folder_names_its_teacher_or_else_its_student(tmp_path):
    assert checks.teacher_file(tmp_path) is None and checks.teacher_file(tmp_path / "none.keras") is None
    (tmp_path / "student.keras").write_text("")
    assert checks.teacher_file(tmp_path) == tmp_path / "student.keras"
    (tmp_path / "teacher.keras").write_text("")
    assert checks.teacher_file(tmp_path) == tmp_path / "teacher.keras"
    assert checks.teacher_file(tmp_path / "student.keras") == tmp_path / "student.keras"
