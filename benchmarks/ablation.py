"""What each part of DeiT-LT contributes: every row is trained in the same way on one long-tailed folder of images.

    python benchmarks/ablation.py --images=cifar10_lt --out_dir=runs/ablation --jobs=2
    python benchmarks/ablation.py ... --rows=vit,deit_lt_1 --seeds=0,1 --epochs=20 --teacher_epochs=8
    python benchmarks/ablation.py --out_dir=benchmarks --tables  # trains nothing: the published tables again

Each run of ROWS is `python -m deitlt_tf.train` in a workdir of its own, OUT_DIR/<row>_seed<k>, with --recipe and the
constants of this file. A finished run has a line in OUT_DIR/ablation.jsonl and is not repeated. After a kill the same
command continues, also in the middle of a run. The first seed of all rows comes before the other seeds, and the rows of
FIRST come before the others. After every run OUT_DIR/ablation.md is written again, with tables and with the verdicts on
the paper's claims. At the end `deitlt_tf.report --compare` puts the first seed of each row on one page. What each run
prints is in OUT_DIR/logs.

All rows share data, order and views of the images, number of passes, and schedule; rows of "ten minutes" have 60 % of
the passes, rows of "a night" 150 % and networks of their own. In every row there is no mixing and no smoothing from
epoch K (nine tenths) on, so that rows with and without re-weighting differ in the weights alone (beta = 0 gives all
classes the same weight). One teacher of each kind, with seed 0, is trained for the students of all seeds, so the spread
over seeds is the spread of students and not of teachers. All teachers from scratch but the night's train for the same
number of epochs, although an epoch takes longer for some. With --jobs=2 two runs share the cores: two processes of one
thread each are faster than one process of two threads.
"""

import argparse
import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from deitlt_tf.recipes import command_line
from deitlt_tf.recipes import flags as recipe_flags
from deitlt_tf.recipes.flags import FREE

RECIPE = Path(__file__).with_name("ablation.cfg")
EPOCHS, TEACHER_EPOCHS = 100, 40
PROBE_IMAGES = 2000  # a rank needs several times as many images as the network has channels
# The recipe is DeiT-LT (1). Rows and teachers list the flags that they change.
COMMON = ["--nobaseline", "--checkpoint_seconds=300", "--noema_warmup"]

OTHER_LOSS = ["--teacher_classifier=linear", "--teacher_rho=0.05"]
TEACHERS = {
    "ce": ["--teacher_loss=ce", "--teacher_classifier=linear", "--teacher_rho=0"],
    "ldam": ["--teacher_rho=0"],
    "ldam_sam": [],
    "ldam_sam_resnet20": ["--teacher_model=resnet20"],
    "paco_sam": ["--teacher_loss=paco", *OTHER_LOSS],
    "glmc_sam": ["--teacher_loss=glmc", "--teacher_consistency=1", *OTHER_LOSS],
    "mdcs": ["--teacher_loss=mdcs", "--teacher_model=mdcs_resnet8", "--teacher_classifier=linear", "--teacher_rho=0"],
    "tuned": [f"--flagfile={RECIPE.parents[1] / 'configs' / 'teacher_pretrained.cfg'}"],
}
TEACHER_PASSES = {"ldam_sam_resnet20": 1.5}  # epochs as a share of --teacher_epochs; 1 for all others
QUICK = "quick"  # the teacher that `python -m deitlt_tf.quick` makes, as its own recipe says
# Teachers whose answers are averaged: {name: (kind, seeds)}. The member with seed 0 is also the single teacher.
ENSEMBLES = {"ldam_sam_pair": ("ldam_sam", (0, 1))}
# The teacher of the row with balanced softmax. It is that of DeiT-LT (1), so the two rows differ in one thing. Choosing
# the teacher with the best test accuracy would be a choice on test images.
BEST_TEACHER = "ldam_sam"


# A line of ablation.jsonl leaves out flags with their default value. A default that changed after the first lines were
# written stays as it was then, or those lines would no longer be recognised.
DEFAULTS = recipe_flags.DEFAULTS | {"teacher_classifier": "cosine", "ema_warmup": False}


class Row(NamedTuple):
    """title: what the table calls it. teacher: key of TEACHERS or ENSEMBLES, QUICK, or None. flags: of the student.

    seeds: number of seeds. passes: epochs of the row, as a share of --epochs. reweighted: K, the first epoch with
    re-weighting, as a share of the row's epochs.
    """

    title: str
    teacher: str | None
    flags: list[str]
    seeds: int = 1
    passes: float = 1.0
    reweighted: float = 0.9


NO_DRW = ["--beta=0"]
SHORT = ["--lr=1.2e-2"]  # of configs/folder_small_minutes.cfg
FINE = ["--patch_size=4"]  # 64 patches instead of 16; the paper has 196, because it enlarges the image seven times
VIT = ["--method=vit_drw", *NO_DRW]
BALANCED = ["--logit_adjustment=1"]
VIEWS = ["--crop=resized", "--randaugment=rand-m9-mstd0.5-inc1", "--erasing=0.25", "--mix_prob=1"]  # of the paper
OURS = [*BALANCED, "--guidance=2.5", "--distillation=soft", "--temperature=1"]  # of configs/folder_small*.cfg
LARGE = ["--embed_dim=96", "--depth=4", "--num_heads=3", "--drop_path=0.05", "--lr=2e-3", "--ema_decay=0.999"]
NIGHT = [*FINE, "--stem=conv", *LARGE, "--ema_warmup"]  # of configs/folder_small_night.cfg


def with_stem(name: str, title: str, budget: list[str], *, seeds: int, passes: float = 1.0) -> dict[str, Row]:
    """Rows of the student of configs/folder_small*.cfg, called `name`, and of the same with other parts or teachers.

    title: what the tables call the budget. budget: flags of all its rows. seeds: of the rows that ask about one
    part; the plain ViT and the student itself have three. passes: see Row.
    """
    stem = [*budget, "--stem=conv"]
    ours = [*stem, *OURS]
    return {
        f"{name}_vit": Row(f"ViT, {title}", None, [*VIT, *stem], 3, passes),
        f"{name}_vit_balanced": Row(f"ViT, {title}, balanced softmax", None, [*VIT, *stem, *BALANCED], seeds, passes),
        f"{name}_hard": Row(f"DeiT-LT (1), {title}", "ldam_sam", stem, 1, passes),
        name: Row(f"DeiT-LT (1), {title}, guidance, soft, balanced CLS", "ldam_sam", ours, 3, passes),
        f"{name}_deit": Row("the same, DeiT: teacher CE, no re-weighting", "ce", [*ours, *NO_DRW], seeds, passes),
        f"{name}_no_drw": Row("the same without re-weighting", "ldam_sam", [*ours, *NO_DRW], seeds, passes),
        f"{name}_sharp": Row("the same, teacher LDAM without SAM", "ldam", ours, seeds, passes),
        f"{name}_tuned": Row("the same, teacher fine-tuned from ImageNet weights", "tuned", ours, seeds, passes),
        f"{name}_views": Row("the same, the paper's own augmentation", "ldam_sam", [*ours, *VIEWS], 1, passes),
        f"{name}_quick": Row("the same, teacher quick: frozen ImageNet features", QUICK, ours, seeds, passes),
    }


ROWS = {
    "vit": Row("ViT", None, VIT, seeds=3),
    "vit_drw": Row("ViT + class-balanced DRW on CLS", None, ["--method=vit_drw"]),
    "deit": Row("DeiT: the teacher, CE, sees the clean view", "ce", ["--teacher_sees=clean", *NO_DRW], seeds=3),
    "mixed": Row("+ it sees the mixed view", "ce", NO_DRW),
    "drw": Row("+ DRW on DIST, teacher LDAM + DRW", "ldam", []),
    "deit_lt_1": Row("+ flat teacher, LDAM + DRW + SAM = DeiT-LT (1)", "ldam_sam", [], seeds=3),
    "clean": Row("DeiT-LT (1), the teacher sees the clean view", "ldam_sam", ["--teacher_sees=clean"]),
    "deit_lt_2": Row("DeiT-LT (2): teacher PaCo + SAM", "paco_sam", []),
    "soft": Row("DeiT-LT (1), soft instead of hard", "ldam_sam", ["--distillation=soft"]),
    "balanced": Row("DeiT-LT (1), balanced softmax on CLS", BEST_TEACHER, ["--logit_adjustment=1"]),
    "glmc": Row("teacher GLMC + SAM", "glmc_sam", []),
    "mdcs": Row("teacher MDCS", "mdcs", []),
    "longer": Row("DeiT-LT (1), re-weighted, and not mixed, from 70 % on", "ldam_sam", [], seeds=3, reweighted=0.7),
    "pair": Row("DeiT-LT (1), two teachers' mean answer", "ldam_sam_pair", [], seeds=3),
    "vit_fine": Row("ViT, patches of 4", None, [*VIT, *FINE]),
    "fine": Row("DeiT-LT (1), patches of 4", "ldam_sam", FINE, seeds=3),
    **with_stem("stem", "stem", FINE, seeds=1),
    **with_stem("minutes", "stem, ten minutes", SHORT, seeds=3, passes=0.6),
    # The recipe of ten minutes as it was first measured.
    **with_stem("slow_minutes", "stem, ten minutes, learning rate 3e-3", [], seeds=3, passes=0.6),
    "night_vit": Row("ViT, stem, a night", None, [*VIT, *NIGHT], passes=1.5),
    "night": Row(
        "DeiT-LT (1), stem, a night, guidance, soft, balanced CLS", "ldam_sam_resnet20", [*NIGHT, *OURS], 3, 1.5
    ),
}
FIRST = ("vit", "deit", "deit_lt_1")


class Task(NamedTuple):
    """A teacher, or one run of a row. commands: run one after the other. needs: names of the teachers' folders."""

    name: str
    commands: list[list[str]]
    folder: Path
    needs: tuple[str, ...] = ()
    run: tuple[str, int] | None = None  # row and seed; None for a teacher


def main() -> None:
    options = arguments()
    if options.tables:
        print(write_tables(options.out_dir))
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes on how TensorFlow was built
    if options.measure:
        measure(options.measure)
        return
    if not (options.images / "train").is_dir():
        sys.exit(f"error: --images={options.images} has no folder train/ with a folder of images per class.")
    options.out_dir.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ablation: stopped by SIGTERM; the same command goes on."))
    try:
        with locked(options.out_dir) as lock:
            failed = do(tasks(options), options, lock)
            finish(options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("ablation: interrupted; the same command goes on.")
    if failed:
        sys.exit(f"error: not finished: {', '.join(failed)}. Why is in {options.out_dir / 'logs'}.")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("cifar10_lt"),
        help="Folder of images, with train/<class>/ and test/<class>/.",
    )
    parser.add_argument(
        "--out_dir", type=Path, default=Path("runs/ablation"), help="Folder for all runs, tables and logs."
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="Flag file that all runs start from.")
    parser.add_argument(
        "--rows", type=row_names, default=list(ROWS), help=f"Rows to run, of {','.join(ROWS)}; default: all."
    )
    parser.add_argument(
        "--seeds", type=whole_numbers, help="Seeds of every row, e.g. 0,1,2; default: the number that ROWS has."
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="Epochs of every student.")
    parser.add_argument("--teacher_epochs", type=int, default=TEACHER_EPOCHS, help="Epochs of every teacher.")
    parser.add_argument("--jobs", type=int, default=1, help="Runs at the same time; they share the cores.")
    parser.add_argument(
        "--measure", type=Path, help="Internal: workdir of a finished run; only write its measured.json."
    )
    parser.add_argument(
        "--tables", action="store_true", help="Only write OUT_DIR/ablation.md again from OUT_DIR/ablation.jsonl."
    )
    return parser.parse_args(argv)


def row_names(text: str) -> list[str]:
    rows = text.split(",")
    if unknown := [row for row in rows if row not in ROWS]:
        raise argparse.ArgumentTypeError(f"there is no row {unknown[0]!r}: choose from {', '.join(ROWS)}")
    return rows


def whole_numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[IO]:
    """A lock on OUT_DIR that the runs inherit. A run that outlives a killed ablation is waited for, not repeated."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for runs that still work in {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


# ---- which runs are left ----


def order(rows: list[str], seeds: list[int] | None) -> list[tuple[str, int]]:
    """(row, seed) of all runs: seed by seed, within a seed the rows of FIRST before the others."""
    runs = [(row, seed) for row in rows for seed in (seeds if seeds is not None else range(ROWS[row].seeds))]
    return sorted(runs, key=lambda run: (run[1], run[0] not in FIRST, rows.index(run[0])))


def folder_of(out: Path, row: str, seed: int) -> Path:
    return out / f"{row}_seed{seed}"


def shared_flags(options: argparse.Namespace, teacher: str | None) -> list[str]:
    """Arguments that a student and its teacher have in common."""
    kind, _ = ENSEMBLES.get(teacher, (teacher, None))
    epochs = round(options.teacher_epochs * TEACHER_PASSES.get(kind, 1))
    flags = [f"--flagfile={options.recipe}", f"--data_dir={options.images}", *COMMON, f"--teacher_epochs={epochs}"]
    if kind and kind != QUICK:
        late = epochs * 4 // 5 if kind.startswith("ldam") else -1  # DRW, as published
        flags += [*TEACHERS[kind], f"--teacher_reweight_epoch={late}"]
    return flags


def student_flags(options: argparse.Namespace, row: str, seed: int) -> list[str]:
    """Arguments of `deitlt_tf.train` for one run."""
    _, teacher, changes, _, passes, reweighted = ROWS[row]
    epochs = max(1, round(options.epochs * passes))
    flags = [
        *shared_flags(options, teacher),
        f"--workdir={folder_of(options.out_dir, row, seed)}",
        f"--seed={seed}",
        f"--epochs={epochs}",
        # At most the last epoch, because a recipe refuses K = epochs.
        f"--reweight_epoch={min(round(epochs * reweighted), epochs - 1)}",
        f"--eval_every={max(1, options.epochs // 10)}",
        *changes,
    ]
    if teacher:
        flags.append(f"--teacher={options.out_dir / 'teachers' / teacher}")
        if "--distillation=soft" not in changes:
            sees = next((flag.partition("=")[2] for flag in changes if flag.startswith("--teacher_sees")), "mixed")
            views = f"{teacher}_{sees}_seed{seed}" + (f"_{reweighted:g}" if reweighted != 0.9 else "")
            flags.append(f"--teacher_labels={options.out_dir / 'labels' / views}")
    return flags


def recipe_of(flags: list[str]) -> dict:
    """The flags that decide a run's weights and have no default value, by which a line recognises its run."""
    values = command_line.recipe_of(["ablation", *flags]).flags
    deciding = {name: values[name] for name in DEFAULTS if name not in FREE | {"teacher", "seed"}}
    if Path(values["teacher"]).name in ("", QUICK):  # no teacher, or one that these flags do not describe
        deciding = {name: value for name, value in deciding.items() if not name.startswith("teacher")}
    return {name: value for name, value in sorted(deciding.items()) if value != DEFAULTS[name]}


def lines_of(out: Path) -> list[dict]:
    path = out / "ablation.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def tasks(options: argparse.Namespace) -> list[Task]:
    """The tasks that are left, in order; a teacher comes before its first student.

    Raises ValueError for a run that was finished with another recipe.
    """
    done = {(line["row"], line["seed"]): line["recipe"] for line in lines_of(options.out_dir)}
    todo: list[Task] = []
    for row, seed in order(options.rows, options.seeds):
        teacher, flags = ROWS[row].teacher, student_flags(options, row, seed)
        recipe = recipe_of(flags)
        if (row, seed) in done:
            there = done[row, seed]
            if differ := [name for name in recipe | there if recipe.get(name) != there.get(name)]:
                raise ValueError(
                    f"{options.out_dir} has {row}, seed {seed}, of another recipe: --{differ[0]} is "
                    f"{there.get(differ[0])!r} there and {recipe.get(differ[0])!r} here. Choose another --out_dir."
                )
            continue
        for task in teacher_tasks(options, teacher) if teacher else []:
            if task not in todo:
                todo.append(task)
        folder = folder_of(options.out_dir, row, seed)
        commands = [
            [sys.executable, "-m", "deitlt_tf.train", *flags],
            [sys.executable, __file__, f"--measure={folder}"],
        ]
        todo.append(Task(f"{row}, seed {seed}", commands, folder, (teacher,) if teacher else (), (row, seed)))
    return todo


def teacher_tasks(options: argparse.Namespace, teacher: str) -> list[Task]:
    """The tasks that produce a teacher: its training, or the trainings of its members and the file that joins them."""
    folder = options.out_dir / "teachers" / teacher
    if teacher in ENSEMBLES:
        kind, seeds = ENSEMBLES[teacher]
        members = [teacher_task(options, kind, seed) for seed in seeds]
        files = ",".join(str(member.folder / "teacher.keras") for member in members)
        script = str(Path(__file__).with_name("ensemble.py"))
        command = [sys.executable, script, f"--teachers={files}", f"--out={folder / 'teacher.keras'}"]
        needs = tuple(member.folder.name for member in members)
        return [*members, Task(f"teacher {teacher}", [command], folder, needs)]
    return [teacher_task(options, teacher, 0)]


def teacher_task(options: argparse.Namespace, kind: str, seed: int) -> Task:
    name = f"{kind}_seed{seed}" if seed else kind
    folder = options.out_dir / "teachers" / name
    if kind == QUICK:
        flags = [f"--data_dir={options.images}", f"--workdir={folder}", f"--seed={seed}"]
        return Task(f"teacher {name}", [[sys.executable, "-m", "deitlt_tf.quick", *flags]], folder)
    flags = [*shared_flags(options, kind), f"--seed={seed}", f"--teacher_workdir={folder}"]
    return Task(f"teacher {name}", [[sys.executable, "-m", "deitlt_tf.train_teacher", *flags]], folder)


# ---- running them ----


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S ") + text, file=sys.stderr, flush=True)


def do(waiting: list[Task], options: argparse.Namespace, lock) -> list[str]:
    """Run all tasks, --jobs at a time. Returns the names of failed tasks and of the tasks that needed them."""
    (options.out_dir / "logs").mkdir(exist_ok=True)
    missing = {task.folder.name for task in waiting if not task.run}  # teachers that do not exist yet
    running: list[tuple[Task, int, subprocess.Popen]] = []  # task, place among its commands, process
    failed, total, reported = [], len(waiting), time.monotonic()
    say(f"{total} to do, teachers included")
    try:
        while waiting or running:
            for task, place, process in list(running):
                if process.poll() is None:
                    continue
                running.remove((task, place, process))
                if process.returncode:
                    say(f"{task.name} failed: see {log_of(options, task)}")
                    failed.append(task.name)
                    lost = dependants(waiting, task)
                    failed += [other.name for other in lost]
                    waiting = [other for other in waiting if other not in lost]
                elif place + 1 < len(task.commands):
                    running.append((task, place + 1, start(task, place + 1, options, lock)))
                else:
                    if task.run:
                        keep(task, options)
                    else:
                        missing.discard(task.folder.name)
                    say(f"{task.name}: done; {len(waiting) + len(running)} of {total} left")
            ready = [task for task in waiting if not missing.intersection(task.needs)]
            for task in ready[: max(0, options.jobs - len(running))]:
                say(f"{task.name}: starts or continues")
                waiting.remove(task)
                running.append((task, 0, start(task, 0, options, lock)))
            if time.monotonic() - reported > 600:
                reported = time.monotonic()
                say(", ".join(f"{task.name}: epoch {epochs_of(task)}" for task, _, _ in running))
            time.sleep(0.5)
    finally:
        for *_, process in running:
            process.terminate()  # each run saves, and continues from there next time
        for *_, process in running:
            process.wait()
    return failed


def dependants(waiting: list[Task], lost: Task) -> list[Task]:
    """The tasks that need a failed teacher, and the tasks that need one of those."""
    direct = [task for task in waiting if not lost.run and lost.folder.name in task.needs]
    return [*direct, *(other for task in direct for other in dependants(waiting, task))]


def log_of(options: argparse.Namespace, task: Task) -> Path:
    return options.out_dir / "logs" / f"{task.folder.name}.log"


def epochs_of(task: Task) -> int:
    """Epochs that a task has finished."""
    path = task.folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def start(task: Task, place: int, options: argparse.Namespace, lock) -> subprocess.Popen:
    environment = dict(os.environ)
    if options.jobs > 1:
        threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
        variables = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        environment |= dict.fromkeys(variables, threads)
    with log_of(options, task).open("a") as log:
        return subprocess.Popen(
            task.commands[place],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C reaches this process only, which then lets the runs save
        )


def keep(task: Task, options: argparse.Namespace) -> None:
    """Add the line of a finished run, and write the tables again."""
    from deitlt_tf.runs.files import write_text

    row, seed = task.run
    line = {"row": row, "seed": seed, "recipe": recipe_of(student_flags(options, row, seed))}
    line |= json.loads((task.folder / "measured.json").read_text())
    text = "".join(json.dumps(each) + "\n" for each in [*lines_of(options.out_dir), line])
    write_text(options.out_dir / "ablation.jsonl", text)
    write_tables(options.out_dir)


def write_tables(out: Path) -> str:
    """OUT/ablation.md from OUT/ablation.jsonl; returns its text."""
    import ablation_tables

    from deitlt_tf.runs.files import write_text

    lines = lines_of(out)
    teachers = {row: ROWS[row].teacher for row in ROWS}
    text = ablation_tables.page(lines, titles={row: ROWS[row].title for row in ROWS}, teachers=teachers)
    write_text(out / "ablation.md", text)
    return text


def finish(options: argparse.Namespace) -> None:
    """Print the tables, and put the first seeds of all rows on one page."""
    from deitlt_tf.runs.files import write_text

    lines = lines_of(options.out_dir)
    if not lines:
        return
    print(write_tables(options.out_dir))
    first = {}
    for seed, row in sorted((line["seed"], line["row"]) for line in lines):
        if (
            folder := folder_of(options.out_dir, row, seed)
        ).is_dir():  # a line may come from another machine, without its run
            first.setdefault(row, folder)
    folders = [first[row] for row in ROWS if row in first]
    if len(folders) > 1:
        command = [sys.executable, "-m", "deitlt_tf.report", f"--compare={','.join(map(str, folders))}"]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise ValueError(f"{options.out_dir / 'ablation.html'} could not be written: see the message above.")
        write_text(options.out_dir / "ablation.html", (folders[0] / "comparison.html").read_text())
    say(f"{options.out_dir}: ablation.md, ablation.jsonl" + (", ablation.html" if len(folders) > 1 else ""))


# ---- the numbers of a finished run ----


def measure(folder: Path) -> None:
    """Write FOLDER/measured.json: which test images each output gets right, probes, the cosine by epoch.

    The output "uniform" is the main output, for CLS and DIST their mean, as it is exported with --prior=uniform.
    """
    import ablation_tables
    import keras
    import numpy as np

    from deitlt_tf.evaluation import predictions, probes
    from deitlt_tf.evaluation.run import networks, test_batches
    from deitlt_tf.models import interface
    from deitlt_tf.report import sections
    from deitlt_tf.report.numbers import opened
    from deitlt_tf.runs.checkpoints import Journal
    from deitlt_tf.runs.files import write_json
    from deitlt_tf.serving.served import prior_adjustment

    recipe = command_line.recipe_of(["ablation", f"--workdir={folder}"], from_workdir=True)
    run = opened(recipe)
    models = networks(run)
    by_model = {name: predictions.predict(model, test_batches(run, model, row=name)) for name, model in models.items()}
    row = "student" if "student" in models else "ViT"
    student, labels = models[row], by_model[row].labels
    counts, names = run.class_counts, run.splits.train.class_names
    right = {head: by_model[row].right(head) for head in by_model[row].predicted}
    for name in ("EMA", "teacher"):
        if name in by_model:
            main = list(by_model[name].predicted)[-1]  # the last of several heads is their mean
            right[name] = by_model[name].right(main)
    logits = interface.heads(student.output)
    main = list(logits)[-1]
    shift = prior_adjustment(recipe, "uniform", names, counts, weights="student", head=main)
    adjusted = keras.Model(student.input, logits[main] + shift)
    right["uniform"] = predictions.predict(adjusted, test_batches(run, adjusted)).right("cls")
    drawn = np.random.default_rng(0).choice(len(labels), min(PROBE_IMAGES, len(labels)), replace=False)
    inside = sections.inside(probes.probe(student, test_batches(run, student, indices=drawn, batch=100)))
    numbers = {
        "class_counts": counts.tolist(),
        "total": np.bincount(labels, minlength=len(counts)).tolist(),
        "right": {name: ablation_tables.packed(marks, labels, len(counts)) for name, marks in right.items()},
        "reweight_epoch": recipe.student.schedule.reweight_epoch,
        "cosine": [line.get("cosine") for line in Journal(folder).lines()],
        "diversity": inside["diversity"],
        "rank": inside["rank"],
        "distance": [float(np.mean(heads)) for heads in inside["distance"]],
    }
    write_json(folder / "measured.json", numbers)


if __name__ == "__main__":
    main()
