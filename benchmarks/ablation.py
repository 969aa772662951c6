"""What each part of DeiT-LT brings, at equal cost: every row trained alike on one long-tailed folder of small images.

    python benchmarks/ablation.py --images=cifar10_lt --out_dir=runs/ablation --jobs=2
    python benchmarks/ablation.py ... --rows=vit,deit_lt_1 --seeds=0,1 --epochs=20 --teacher_epochs=8

Each run of ROWS is `python -m deitlt_tf.train` in a workdir of its own, OUT_DIR/<row>_seed<k>, from --recipe and what
is in capitals here. Runs that are done have a line in OUT_DIR/ablation.jsonl and are not done again; killed at any
moment, the same command goes on, in the middle of a run too. One seed of all rows comes first, FIRST before the others.
After every run OUT_DIR/ablation.md has the tables and the verdicts on the paper's claims anew; in the end
`deitlt_tf.report --compare` puts the first seeds on one page. What a run prints is in OUT_DIR/logs.

What is equal: data, order and views of the images, passes, schedule, and in every row no mixing and no smoothing from
epoch K (nine tenths) on, so that re-weighting is all that differs where it differs (beta = 0 weighs all classes alike).
One teacher of each kind, seed 0, is trained for the students of all seeds: the spread over seeds is that of students,
not of teachers. Teachers are trained for as many epochs each, whatever an epoch of theirs costs. With --jobs=2 two runs
go on at a time, each with its share of the cores: two processes of one thread are faster than one of two.
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
from deitlt_tf.recipes.flags import DEFAULTS, FREE

RECIPE = Path(__file__).parent.parent / "configs" / "folder_small.cfg"
EPOCHS, TEACHER_EPOCHS = 100, 40
PROBE_IMAGES = 2000  # several times the width of the network, for ranks
# The recipe is DeiT-LT (1) itself: rows and teachers say what they change of it.
COMMON = ["--nobaseline", "--checkpoint_seconds=300"]

OTHER_LOSS = ["--teacher_classifier=linear", "--teacher_rho=0.05"]
TEACHERS = {
    "ce": ["--teacher_loss=ce", "--teacher_classifier=linear", "--teacher_rho=0"],
    "ldam": ["--teacher_rho=0"],
    "ldam_sam": [],
    "paco_sam": ["--teacher_loss=paco", *OTHER_LOSS],
    "glmc_sam": ["--teacher_loss=glmc", "--teacher_consistency=1", *OTHER_LOSS],
    "mdcs": ["--teacher_loss=mdcs", "--teacher_model=mdcs_resnet8", "--teacher_classifier=linear", "--teacher_rho=0"],
}
# Teachers that answer together: {name: (kind, seeds)}. Those of seed 0 are the single ones.
ENSEMBLES = {"ldam_sam_pair": ("ldam_sam", (0, 1))}
# Of the row with balanced softmax. DeiT-LT (1)'s, so that one thing differs; the best by test accuracy would be chosen
# on test images.
BEST_TEACHER = "ldam_sam"


class Row(NamedTuple):
    """title: in the table. teacher: a key of TEACHERS or ENSEMBLES, or none. flags: of the student. seeds: how many.
    reweighted: the share of the epochs after which K is.
    """

    title: str
    teacher: str | None
    flags: list[str]
    seeds: int = 1
    reweighted: float = 0.9


NO_DRW = ["--beta=0"]
FINE = ["--patch_size=4"]  # 64 patches instead of 16; the paper has 196, of an image made seven times larger
ROWS = {
    "vit": Row("ViT", None, ["--method=vit_drw", *NO_DRW], seeds=3),
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
    "vit_fine": Row("ViT, patches of 4", None, ["--method=vit_drw", *NO_DRW, *FINE]),
    "fine": Row("DeiT-LT (1), patches of 4", "ldam_sam", FINE, seeds=3),
}
FIRST = ("vit", "deit", "deit_lt_1")


class Task(NamedTuple):
    """One thing to do: a teacher, or one run of a row. commands: one by one. needs: names of teachers' folders."""

    name: str
    commands: list[list[str]]
    folder: Path
    needs: tuple[str, ...] = ()
    run: tuple[str, int] | None = None  # row and seed; None: a teacher


def main() -> None:
    asked = arguments()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no notes on how TensorFlow was built
    if asked.measure:
        measure(asked.measure)
        return
    if not (asked.images / "train").is_dir():
        sys.exit(f"error: --images={asked.images} has no folder train/ with a folder of images per class.")
    asked.out_dir.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ablation: stopped by SIGTERM; the same command goes on."))
    try:
        with locked(asked.out_dir) as lock:
            failed = do(tasks(asked), asked, lock)
            finish(asked)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("ablation: interrupted; the same command goes on.")
    if failed:
        sys.exit(f"error: not finished: {', '.join(failed)}. Why is in {asked.out_dir / 'logs'}.")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=Path("cifar10_lt"), help="folder with train/<class>/, test/...")
    parser.add_argument("--out_dir", type=Path, default=Path("runs/ablation"), help="where all runs are kept")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="flag file that all runs start from")
    parser.add_argument("--rows", type=names, default=list(ROWS), help=f"of {','.join(ROWS)}; default: all")
    parser.add_argument("--seeds", type=numbers, help="of all rows, e.g. 0,1,2; default: as many as ROWS says")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of students")
    parser.add_argument("--teacher_epochs", type=int, default=TEACHER_EPOCHS, help="of teachers")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time; they share the cores")
    parser.add_argument("--measure", type=Path, help="of a finished run: only write its measured.json (used inside)")
    return parser.parse_args(argv)


def names(text: str) -> list[str]:
    found = text.split(",")
    if unknown := [name for name in found if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"there is no row {unknown[0]!r}: choose of {', '.join(ROWS)}")
    return found


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[IO]:
    """A lock on OUT_DIR that started runs share: what outlives a killed ablation is waited for, not done twice."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for what is still at work in {folder}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


# ---- what there is to do ----


def order(rows: list[str], seeds: list[int] | None) -> list[tuple[str, int]]:
    """(row, seed) of all runs: seed by seed, FIRST before the others."""
    runs = [(row, seed) for row in rows for seed in (seeds if seeds is not None else range(ROWS[row].seeds))]
    return sorted(runs, key=lambda run: (run[1], run[0] not in FIRST, rows.index(run[0])))


def folder_of(out: Path, row: str, seed: int) -> Path:
    return out / f"{row}_seed{seed}"


def shared_flags(asked: argparse.Namespace, teacher: str | None) -> list[str]:
    epochs = asked.teacher_epochs
    found = [f"--flagfile={asked.recipe}", f"--data_dir={asked.images}", *COMMON, f"--teacher_epochs={epochs}"]
    if teacher:
        kind, _ = ENSEMBLES.get(teacher, (teacher, None))
        late = epochs * 4 // 5 if kind.startswith("ldam") else -1  # DRW, as published
        found += [*TEACHERS[kind], f"--teacher_reweight_epoch={late}"]
    return found


def student_flags(asked: argparse.Namespace, row: str, seed: int) -> list[str]:
    """Arguments of `deitlt_tf.train` for one run."""
    _, teacher, flags, _, reweighted = ROWS[row]
    found = [
        *shared_flags(asked, teacher),
        f"--workdir={folder_of(asked.out_dir, row, seed)}",
        f"--seed={seed}",
        f"--epochs={asked.epochs}",
        f"--reweight_epoch={round(asked.epochs * reweighted)}",
        f"--eval_every={max(1, asked.epochs // 10)}",
        *flags,
    ]
    if teacher:
        found.append(f"--teacher={asked.out_dir / 'teachers' / teacher}")
        if "--distillation=soft" not in flags:
            sees = next((flag.partition("=")[2] for flag in flags if flag.startswith("--teacher_sees")), "mixed")
            views = f"{teacher}_{sees}_seed{seed}" + (f"_{reweighted:g}" if reweighted != 0.9 else "")
            found.append(f"--teacher_labels={asked.out_dir / 'labels' / views}")
    return found


def recipe_of(flags: list[str]) -> dict:
    """What decides a run's weights and is not a default: {flag: value}."""
    found = vars(command_line.parse(["ablation", *flags]))
    kept = {name: found[name] for name in DEFAULTS if name not in FREE | {"teacher", "seed"}}
    if not found["teacher"]:
        kept = {name: value for name, value in kept.items() if not name.startswith("teacher")}
    return {name: value for name, value in sorted(kept.items()) if value != DEFAULTS[name]}


def lines_of(out: Path) -> list[dict]:
    path = out / "ablation.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def tasks(asked: argparse.Namespace) -> list[Task]:
    """What is not done yet, in order, teachers before their first student.

    Raises ValueError where a run was done with another recipe.
    """
    done = {(line["row"], line["seed"]): line["recipe"] for line in lines_of(asked.out_dir)}
    found: list[Task] = []
    for row, seed in order(asked.rows, asked.seeds):
        teacher, flags = ROWS[row].teacher, student_flags(asked, row, seed)
        recipe = recipe_of(flags)
        if (row, seed) in done:
            there = done[row, seed]
            if differ := [name for name in recipe | there if recipe.get(name) != there.get(name)]:
                raise ValueError(
                    f"{asked.out_dir} has {row}, seed {seed}, of another recipe: --{differ[0]} is "
                    f"{there.get(differ[0])!r} there and {recipe.get(differ[0])!r} here. Choose another --out_dir."
                )
            continue
        for task in teacher_tasks(asked, teacher) if teacher else []:
            if task not in found:
                found.append(task)
        folder = folder_of(asked.out_dir, row, seed)
        commands = [
            [sys.executable, "-m", "deitlt_tf.train", *flags],
            [sys.executable, __file__, f"--measure={folder}"],
        ]
        found.append(Task(f"{row}, seed {seed}", commands, folder, (teacher,) if teacher else (), (row, seed)))
    return found


def teacher_tasks(asked: argparse.Namespace, teacher: str) -> list[Task]:
    """What makes a teacher: its training, or those of its members and the file that joins them."""
    folder = asked.out_dir / "teachers" / teacher
    if teacher in ENSEMBLES:
        kind, seeds = ENSEMBLES[teacher]
        members = [teacher_task(asked, kind, seed) for seed in seeds]
        files = ",".join(str(member.folder / "teacher.keras") for member in members)
        script = str(Path(__file__).with_name("ensemble.py"))
        command = [sys.executable, script, f"--teachers={files}", f"--out={folder / 'teacher.keras'}"]
        needs = tuple(member.folder.name for member in members)
        return [*members, Task(f"teacher {teacher}", [command], folder, needs)]
    return [teacher_task(asked, teacher, 0)]


def teacher_task(asked: argparse.Namespace, kind: str, seed: int) -> Task:
    name = f"{kind}_seed{seed}" if seed else kind
    folder = asked.out_dir / "teachers" / name
    given = [*shared_flags(asked, kind), f"--seed={seed}", f"--teacher_workdir={folder}"]
    return Task(f"teacher {name}", [[sys.executable, "-m", "deitlt_tf.train_teacher", *given]], folder)


# ---- doing it ----


def say(text: str) -> None:
    print(time.strftime("%H:%M:%S ") + text, file=sys.stderr, flush=True)


def do(waiting: list[Task], asked: argparse.Namespace, lock) -> list[str]:
    """Do all tasks, --jobs at a time; returns the names of those that failed, and of those that needed them."""
    (asked.out_dir / "logs").mkdir(exist_ok=True)
    missing = {task.folder.name for task in waiting if not task.run}  # teachers not there yet
    running: list[tuple[Task, int, subprocess.Popen]] = []  # and which of its commands that is
    failed, total, told = [], len(waiting), time.monotonic()
    say(f"{total} to do, teachers included")
    try:
        while waiting or running:
            for task, place, process in list(running):
                if process.poll() is None:
                    continue
                running.remove((task, place, process))
                if process.returncode:
                    say(f"{task.name} failed: see {log_of(asked, task)}")
                    failed.append(task.name)
                    lost = dependants(waiting, task)
                    failed += [other.name for other in lost]
                    waiting = [other for other in waiting if other not in lost]
                elif place + 1 < len(task.commands):
                    running.append((task, place + 1, start(task, place + 1, asked, lock)))
                else:
                    if task.run:
                        keep(task, asked)
                    else:
                        missing.discard(task.folder.name)
                    say(f"{task.name}: done; {len(waiting) + len(running)} of {total} left")
            ready = [task for task in waiting if not missing.intersection(task.needs)]
            for task in ready[: max(0, asked.jobs - len(running))]:
                say(f"{task.name}: begins, or goes on")
                waiting.remove(task)
                running.append((task, 0, start(task, 0, asked, lock)))
            if time.monotonic() - told > 600:
                told = time.monotonic()
                say(", ".join(f"{task.name}: epoch {epochs_of(task)}" for task, _, _ in running))
            time.sleep(0.5)
    finally:
        for *_, process in running:
            process.terminate()  # each saves, and goes on from there next time
        for *_, process in running:
            process.wait()
    return failed


def dependants(waiting: list[Task], lost: Task) -> list[Task]:
    """Those that cannot be done without a teacher that failed, and without what needs it in turn."""
    found = [task for task in waiting if not lost.run and lost.folder.name in task.needs]
    return [*found, *(other for task in found for other in dependants(waiting, task))]


def log_of(asked: argparse.Namespace, task: Task) -> Path:
    return asked.out_dir / "logs" / f"{task.folder.name}.log"


def epochs_of(task: Task) -> int:
    path = task.folder / "metrics.jsonl"
    return path.read_text().count("\n") if path.is_file() else 0


def start(task: Task, place: int, asked: argparse.Namespace, lock) -> subprocess.Popen:
    environment = dict(os.environ)
    if asked.jobs > 1:
        threads = str(max(1, (os.cpu_count() or 1) // asked.jobs))
        variables = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
        environment |= dict.fromkeys(variables, threads)
    with log_of(asked, task).open("a") as log:
        return subprocess.Popen(
            task.commands[place],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C is for this process alone, which lets the runs save
        )


def keep(task: Task, asked: argparse.Namespace) -> None:
    """Add a finished run's line, and write the tables anew."""
    from deitlt_tf.runs.files import write_text

    row, seed = task.run
    line = {"row": row, "seed": seed, "recipe": recipe_of(student_flags(asked, row, seed))}
    line |= json.loads((task.folder / "measured.json").read_text())
    text = "".join(json.dumps(each) + "\n" for each in [*lines_of(asked.out_dir), line])
    write_text(asked.out_dir / "ablation.jsonl", text)
    write_tables(asked.out_dir)


def write_tables(out: Path) -> str:
    import ablation_tables

    from deitlt_tf.runs.files import write_text

    lines = lines_of(out)
    teachers = {row: ROWS[row].teacher for row in ROWS}
    text = ablation_tables.page(lines, titles={row: ROWS[row].title for row in ROWS}, teachers=teachers)
    write_text(out / "ablation.md", text)
    return text


def finish(asked: argparse.Namespace) -> None:
    """Print the tables, and put the first seeds of all rows on one page."""
    from deitlt_tf.runs.files import write_text

    lines = lines_of(asked.out_dir)
    if not lines:
        return
    print(write_tables(asked.out_dir))
    first = {}
    for seed, row in sorted((line["seed"], line["row"]) for line in lines):
        if (folder := folder_of(asked.out_dir, row, seed)).is_dir():  # lines may have come alone, from another machine
            first.setdefault(row, folder)
    folders = [first[row] for row in ROWS if row in first]
    if len(folders) > 1:
        command = [sys.executable, "-m", "deitlt_tf.report", f"--compare={','.join(map(str, folders))}"]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise ValueError(f"{asked.out_dir / 'ablation.html'} could not be made.")
        write_text(asked.out_dir / "ablation.html", (folders[0] / "comparison.html").read_text())
    say(f"{asked.out_dir}: ablation.md, ablation.jsonl" + (", ablation.html" if len(folders) > 1 else ""))


# ---- what a line holds of a finished run ----


def measure(folder: Path) -> None:
    """Write FOLDER/measured.json: which test images each output gets right, probes, the cosine by epoch.

    "uniform" is the main output, of CLS and DIST their mean, as it is exported with --prior=uniform.
    """
    import ablation_tables
    import keras
    import numpy as np

    from deitlt_tf.evaluation import predictions, probes
    from deitlt_tf.models import interface
    from deitlt_tf.report import sections
    from deitlt_tf.report.numbers import batches, networks, opened
    from deitlt_tf.runs.checkpoints import Journal
    from deitlt_tf.runs.files import write_json
    from deitlt_tf.serving.served import prior_adjustment

    sys.path.append(str(Path(__file__).parent.parent / "export"))  # its files import each other so

    flags = command_line.parse(["ablation", f"--workdir={folder}"], from_workdir=True)
    flags.prior, flags.weights = "uniform", "student"
    run = opened(flags)
    models = networks(run)
    asked = {
        name: predictions.predict(network, batches(run, teacher=name == "teacher")) for name, network in models.items()
    }
    student = "student" if "student" in models else "ViT"
    labels, classes = asked[student].labels, len(run.counts)
    right = {head: asked[student].right(head) for head in asked[student].predicted}
    for name in ("EMA", "teacher"):
        if name in asked:
            right[name] = asked[name].right(list(asked[name].predicted)[-1])  # of several the mean, which is the last
    heads = interface.heads(models[student].output)
    main = list(heads)[-1]
    shift = prior_adjustment(flags, run.splits.train.class_names, run.counts, head=main)
    adjusted = keras.Model(models[student].input, heads[main] + shift)
    right["uniform"] = predictions.predict(adjusted, batches(run)).right("cls")
    drawn = np.random.default_rng(0).choice(len(labels), min(PROBE_IMAGES, len(labels)), replace=False)
    inside = sections.inside(probes.probe(models[student], batches(run, indices=drawn, batch=100)))
    found = {
        "class_counts": run.counts.tolist(),
        "total": np.bincount(labels, minlength=classes).tolist(),
        "right": {name: ablation_tables.packed(marks, labels, classes) for name, marks in right.items()},
        "reweight_epoch": flags.reweight_epoch,
        "cosine": [line.get("cosine") for line in Journal(folder).lines()],
        "diversity": inside["diversity"],
        "rank": inside["rank"],
        "distance": [float(np.mean(heads)) for heads in inside["distance"]],
    }
    write_json(folder / "measured.json", found)


if __name__ == "__main__":
    main()
