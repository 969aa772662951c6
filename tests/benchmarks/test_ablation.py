"""benchmarks/ablation.py: what it runs and leaves out, tables and verdicts from known numbers; one whole tiny run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from helpers.programs import SMALL

from deitlt_tf.evaluation import predictions
from deitlt_tf.report import sections

SCRIPT = ROOT / "benchmarks" / "ablation.py"
sys.path.append(str(SCRIPT.parent))

import ablation  # noqa: E402
import ablation_tables as tables  # noqa: E402

COUNTS, TOTAL = [100, 10, 1], [40, 40, 40]


def line(row="vit", seed=0, **hits: int) -> dict:
    """A run that gets right the first hits of every class."""
    hits = {"uniform": 20} | (hits or {"cls": 20, "EMA": 20})
    right = {output: [f"{(1 << n) - 1:x}"] * 3 for output, n in hits.items()}
    inside = {"rank": {"CLS": [9, 9], "DIST": [9, 9 - seed]}, "distance": [10.0, 10.0], "diversity": 0.1}
    run = {"row": row, "seed": seed, "class_counts": COUNTS, "total": TOTAL, "right": right, "recipe": {}}
    return run | inside | {"reweight_epoch": 3, "cosine": [0.9, 0.8, 0.7, 0.5]}


def runs(*lines: dict) -> dict:
    return {(each["row"], each["seed"]): each for each in lines}


def claim(lines: dict, text: str) -> tables.Claim:
    return next(each for each in tables.claims(lines) if text in each.text)


def test_packed_answers_give_the_accuracies_and_paired_differences_of_the_report():
    draw = np.random.default_rng(0)
    labels = draw.permutation(np.repeat(np.arange(3), TOTAL))
    answers = [
        predictions.Predictions(labels, {"cls": np.where(draw.random(120) < p, labels, -1)}, {}) for p in (0.4, 0.7)
    ]
    one, other = ({**line(), "right": {"cls": tables.packed(a.right("cls"), labels, 3)}} for a in answers)
    assert tables.accuracy(one, "cls")["overall"] == pytest.approx(100 * answers[0].right("cls").mean())
    expected = sections.compared(*answers, np.array(COUNTS), **tables.BOOTSTRAP)["accuracy"]["paper"]
    assert tables.difference(other, "cls", one, "cls") == expected


def test_tables_show_every_output_its_spread_and_its_difference_to_the_vit_of_its_seed():
    lines = [line(), line(seed=1, cls=10, EMA=12), line("deit_lt_1", cls=20, dist=30, mean=32, EMA=24, teacher=36)]
    lines.append(line("drw", cls=20, dist=20, mean=30, EMA=24, teacher=36))
    titles = {"vit": "ViT", "soft": "S", "deit_lt_1": "D", "drw": "W"}
    text = tables.page(lines[::-1], titles=titles, teachers={"deit_lt_1": "t", "drw": "t"})
    assert "| mean - that of D | seeds |" in text and "| W | 1 | -5.0 [-" in text
    assert "| ViT | 2 | CLS | 37.5 ± 17.7 |" in text and "|  |  | EMA | 40.0 ± 14.1 |" in text
    assert "| D | 1 | CLS | 50.0 | 50.0 | 50.0 | 50.0 | +0.0 [+0.0, +0.0] |" in text
    assert "|  |  | mean | 80.0 | 80.0 | 80.0 | 80.0 | +30.0 [+" in text
    assert text.count("|  |  | --prior=uniform | 50.0 | 50.0 | 50.0 | 50.0 | +0.0 [+0.0") == 2  # beside ViT's, also so
    assert "|  |  | EMA | 60.0 | 60.0 | 60.0 | 60.0 | +10.0 [+" in text
    assert "| t | 90.0 |" in text and "| S |" not in text
    assert "| not run | 0 | not settled |" not in text and "not run | 0 | not settled |" in text


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        ([30], "not settled"),  # clear, but of one seed
        ([30, 30], "not settled"),
        ([30, 30, 30], "holds"),
        ([30, 30, 21], "not settled"),
        ([10], "not settled"),
        ([10, 10, 10], "does not hold"),
        ([10, 10, 30], "not settled"),
    ],
)
def test_a_claim_on_accuracy_is_settled_by_the_intervals_of_three_seeds(mean, expected):
    ours = [line("deit_lt_1", s, cls=21, dist=20, mean=n, teacher=40) for s, n in enumerate(mean)]
    every = runs(*ours, *(line(seed=s, cls=20, EMA=20) for s in range(3)))
    assert tables.verdict(claim(every, "above the plain ViT")) == expected
    own = "does not hold" if len(mean) == 3 else "not settled"
    assert tables.verdict(claim(every, "above its own teacher")) == own
    assert len(claim(every, "above the plain ViT").parts["tail"]) == len(mean)


@pytest.mark.parametrize(("seeds", "expected"), [(1, "not settled"), (2, "not settled"), (3, "holds")])
def test_a_claim_without_intervals_needs_three_seeds_on_one_side(seeds, expected):
    outputs = {"cls": 20, "dist": 20, "mean": 20, "teacher": 20}
    every = runs(*(line("deit_lt_1", s, **outputs) for s in range(seeds)))
    every |= runs(*(line("deit", s, **outputs) | {"cosine": [0.9, 0.9, 0.9, 0.8]} for s in range(seeds)))
    diversity = claim(every, "Diversity")
    assert tables.verdict(diversity) == expected
    assert [part[0]["value"] for part in diversity.parts.values()] == pytest.approx([0.2, 0.1])
    for each in every.values():
        each["cosine"] = each["cosine"][::-1]
    reverse = {"holds": "does not hold"}.get(expected, expected)
    assert tables.verdict(claim(every, "Diversity")) == reverse
    assert tables.verdict(claim(every, "lower than DeiT's")) == "not settled"  # equal
    below = claim(every, "lower than that of CLS").parts["deit_lt_1"]
    assert [part["value"] for part in below.values()] == list(range(seeds))


def test_one_seed_of_all_rows_comes_first_and_the_most_telling_rows_before_the_others():
    runs = ablation.order(list(ablation.ROWS), None)
    assert runs[:3] == [("vit", 0), ("deit", 0), ("deit_lt_1", 0)] and runs[3] == ("vit_drw", 0)
    last = ["vit", "deit", "deit_lt_1", "longer", "pair", "fine", "stem_vit", "stem"]
    parts = ["_vit", "_vit_balanced", "", "_deit", "_no_drw", "_sharp", "_tuned", "_quick"]
    last += [f"{budget}{part}" for budget in ("minutes", "slow_minutes") for part in parts] + ["night"]
    assert runs[-len(last) :] == [(row, 2) for row in last]
    assert len(set(runs)) == len(runs) == sum(row.seeds for row in ablation.ROWS.values())
    assert ablation.order(["mdcs", "vit"], [2, 0]) == [("vit", 0), ("mdcs", 0), ("vit", 2), ("mdcs", 2)]


def options(folder, *arguments):
    return ablation.arguments([f"--images={folder}", f"--out_dir={folder}", *arguments])


def test_what_has_a_line_is_not_done_again_and_another_recipe_is_refused(tmp_path):
    ours = options(tmp_path)
    todo = ablation.tasks(ours)
    names = [task.name for task in todo]
    assert names[:5] == ["vit, seed 0", "teacher ce", "deit, seed 0", "teacher ldam_sam", "deit_lt_1, seed 0"]
    of_teachers = [name.removeprefix("teacher ") for name in names if name.startswith("teacher")]
    assert sorted(of_teachers) == sorted([*ablation.TEACHERS, ablation.QUICK, "ldam_sam_seed1", "ldam_sam_pair"])
    assert len(names) == len(set(names)) == len(ablation.order(list(ablation.ROWS), None)) + len(of_teachers)
    for task in todo:
        assert all(names.index(f"teacher {needed}") < names.index(task.name) for needed in task.needs), task.name

    recipe = ablation.recipe_of(ablation.student_flags(ours, "deit", 0))
    (tmp_path / "ablation.jsonl").write_text(json.dumps({"row": "deit", "seed": 0, "recipe": recipe}) + "\n")
    left = [task.name for task in ablation.tasks(ours)]
    assert len(left) == len(set(left)) and set(left) == set(names) - {"deit, seed 0"}
    assert left.index("teacher ce") + 1 == left.index("mixed, seed 0")
    assert not ablation.tasks(options(tmp_path, "--rows=deit", "--seeds=0"))
    for flag, message in (("--epochs=10", "--epochs is 100 there and 10"), ("--teacher_epochs=9", "--teacher_epochs")):
        with pytest.raises(ValueError, match=f"deit, seed 0, of another recipe: {message}"):
            ablation.tasks(options(tmp_path, flag))


def test_rows_differ_in_what_their_titles_say():
    ours = options(Path("x"))
    flags = {row: ablation.student_flags(ours, row, 1) for row in ablation.ROWS}
    recipes = {row: ablation.recipe_of(each) for row, each in flags.items()}

    def differ(one, other):
        one, other = recipes[one], recipes[other]
        return {name for name in one | other if one.get(name) != other.get(name)}

    assert differ("vit", "vit_drw") == {"beta"} and differ("deit", "mixed") == {"teacher_sees"}
    assert differ("drw", "deit_lt_1") == {"teacher_rho"} and differ("deit_lt_1", "soft") == {"distillation"}
    assert differ("deit_lt_1", "balanced") == {"logit_adjustment"}
    assert differ("deit_lt_1", "longer") == {"reweight_epoch"} and not differ("deit_lt_1", "pair")
    assert differ("minutes", "minutes_no_drw") == {"beta"} and differ("minutes", "minutes_sharp") == {"teacher_rho"}
    assert differ("stem", "minutes") == {"patch_size", "epochs", "reweight_epoch", "lr"}
    assert differ("minutes", "slow_minutes") == differ("minutes_vit", "slow_minutes_vit") == {"lr"}
    passes = {"minutes": (60, 54), "slow": (60, 54), "night": (150, 135), "longer": (100, 70)}
    for row, each in recipes.items():
        last, late = passes.get(row.split("_")[0], (100, 90))
        assert (each["epochs"], each["reweight_epoch"], "mixing_off" in each) == (last, late, False), row
    labels = {row: [f for f in each if f.startswith("--teacher_labels")] for row, each in flags.items()}
    assert labels["deit_lt_1"] == labels["balanced"] != labels["drw"] and labels["soft"] == labels["vit"] == []
    assert len({str(labels[row]) for row in ("deit", "mixed", "deit_lt_1", "longer", "pair")}) == 5


@pytest.mark.parametrize(
    ("row", "config", "teacher"),
    [
        ("stem", "folder_small", "ldam_sam"),
        ("minutes", "folder_small_minutes", "ldam_sam"),
        ("night", "folder_small_night", "ldam_sam_resnet20"),
    ],
)
def test_the_rows_of_a_budget_are_its_recipe(row, config, teacher):
    """All but the moving average, which no table compares, and how often a run is measured."""
    published = [f"--flagfile=configs/{config}.cfg", "--workdir=x", f"--teacher={teacher}"]
    flags = ablation.student_flags(options(Path("x")), row, 0)
    ours, theirs = (ablation.recipe_of([*each, "--eval_every=0", "--noema_warmup"]) for each in (flags, published))
    assert ours == theirs


def test_the_student_of_a_night_and_the_plain_vit_beside_it_have_the_same_network():
    ours, vit = (
        ablation.recipe_of(ablation.student_flags(options(Path("x")), row, 0)) for row in ("night", "night_vit")
    )
    differ = {name for name in ours | vit if ours.get(name) != vit.get(name) and not name.startswith("teacher")}
    assert differ == {"method", "beta", "logit_adjustment", "guidance", "distillation", "temperature"}


def test_the_teacher_quick_is_made_by_its_own_command_and_its_students_are_not_said_to_have_another():
    ours = options(Path("x"), "--rows=minutes_quick,minutes_tuned", "--seeds=0")
    quick, tuned = (task.commands[0] for task in ablation.tasks(ours) if task.name.startswith("teacher"))
    assert quick[1:3] == ["-m", "deitlt_tf.quick"] and "--workdir=x/teachers/quick" in quick
    assert tuned[1:3] == ["-m", "deitlt_tf.train_teacher"]
    recipe = ablation.recipe_of(ablation.student_flags(ours, "minutes_quick", 0))
    assert not [name for name in recipe if name.startswith("teacher")]
    recipe = ablation.recipe_of(ablation.student_flags(ours, "minutes_tuned", 0))
    assert (recipe["teacher_model"], recipe["teacher_epochs"]) == ("efficientnet_lite0", 10)


@pytest.mark.slow
def test_what_needs_a_teacher_that_failed_is_left_out_and_named_and_the_rest_is_done(tmp_path, monkeypatch):
    def task(name, code, needs=(), run=None):
        commands = [[sys.executable, "-c", "pass"], [sys.executable, "-c", f"raise SystemExit({code})"]]
        return ablation.Task(name, commands, tmp_path / name, needs, run)

    finished = []
    monkeypatch.setattr(ablation, "keep", lambda task, options: finished.append(task.name))
    todo = [task("bad", 3), task("x", 0, ("both",), ("x", 0)), task("good", 0), task("y", 0, ("good",), ("y", 0))]
    todo += [task("both", 0, ("good", "bad")), task("z", 0, run=("z", 0)), task("w", 1, run=("w", 0))]
    with ablation.locked(tmp_path) as lock:
        assert sorted(ablation.do(todo, options(tmp_path, "--jobs=2"), lock)) == ["bad", "both", "w", "x"]
    assert sorted(finished) == ["y", "z"]


def test_the_committed_lines_are_recognised_and_give_the_committed_tables(tmp_path):
    """The published runs were finished with the recipes of today, and no published accuracy or verdict has moved.

    The bounds of intervals, in brackets, are those of `evaluation.intervals`: a better formula there moves them.
    """
    shutil.copy(SCRIPT.with_name("ablation.jsonl"), tmp_path)
    lines = ablation.lines_of(tmp_path)
    left = {task.run for task in ablation.tasks(options(tmp_path)) if task.run}
    assert lines and left.isdisjoint((line["row"], line["seed"]) for line in lines)
    ablation.write_tables(tmp_path)
    ours, published = (path.read_text() for path in (tmp_path / "ablation.md", SCRIPT.with_name("ablation.md")))
    bounds = r"\[[+-][\d.]+, [+-][\d.]+\]"
    assert re.sub(bounds, "[]", ours) == re.sub(bounds, "[]", published)


@pytest.mark.slow
def test_a_killed_ablation_goes_on_and_does_nothing_twice(images, tmp_path):
    recipe, out = tmp_path / "tiny.cfg", tmp_path / "out"
    recipe.write_text("\n".join(SMALL) + "\n")
    flags = ["--rows=vit,deit_lt_1", "--seeds=0", "--epochs=2", "--teacher_epochs=2", "--jobs=2"]
    command = [sys.executable, str(SCRIPT), f"--images={images}", f"--out_dir={out}", f"--recipe={recipe}", *flags]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}

    def run():
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    first = run()
    deadline = time.monotonic() + 300
    while not (out / "ablation.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = (out / "ablation.jsonl").read_text()
    second = run()
    printed, messages = second.communicate(timeout=300)
    assert second.returncode == 0, messages
    after = (out / "ablation.jsonl").read_text()
    lines = [json.loads(text) for text in after.splitlines()]
    # On a slow machine the other row may be done as well before the kill.
    assert before and after.startswith(before) and len(lines) == 2 and "vit, seed 0" not in messages
    assert printed == (out / "ablation.md").read_text() + "\n"
    assert set(lines[1]["right"]) == {"cls", "dist", "mean", "uniform", "EMA", "teacher"}
    assert len(lines[1]["cosine"]) == 2
    results = json.loads((out / "deit_lt_1_seed0" / "results.json").read_text())
    for head, row in results["raw"]["paper"].items():
        assert tables.accuracy(lines[1], head) == pytest.approx({column: row[column] for column in tables.COLUMNS})
    assert (out / "ablation.html").is_file()
    third = run()
    printed_again, messages = third.communicate(timeout=300)
    assert (third.returncode, printed_again) == (0, printed) and "0 to do" in messages
