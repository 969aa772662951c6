"""FedAvg, its corrections and FedLoGe on one long-tailed folder of small images: generic and personal accuracy.

    python benchmarks/federated.py --images=cifar10_lt --out_dir=runs/federated --seeds=0,1,2
    python benchmarks/federated.py ... --methods=fedavg,fedloge,local,central
    python benchmarks/federated.py --out_dir=runs/federated --tables  # trains nothing: the tables again

Each run is `python -m deitlt_tf.federate --flagfile=configs/federated_cifar10_lt.cfg` in OUT_DIR/METHOD_seedK. A seed
decides the division among clients, the first weights, and order and views of the images; all methods of a seed share
them, and pass over as many images. A finished run is not repeated, and after a kill the same command goes on.

The tables have mean and standard deviation over seeds, and differences to plain FedAvg (generic) and to FedAvg with
masked classes (personal) of the same seed, with the 95 % interval of Student's t over seeds. Personal accuracies are
means over clients. Head, mid and tail of generic models are the 3, 4, 3 classes of all clients' images together; those
of personal models are the client's own, as in FedLoGe: head until 75 % of its images, mid until 95 %.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scipy import stats

RECIPE = Path(__file__).parents[1] / "configs" / "federated_cifar10_lt.cfg"
NAMES = {"fedavg": "FedAvg", "fedprox": "FedProx", "fedloge": "FedLoGe", "local": "each alone", "central": "central"}
# Of each kind of model: the row that the others are compared with, the groups, and the columns.
BASELINE = {"generic": "FedAvg, plain", "personal": "FedAvg, masked"}
GROUPS = {"generic": "paper", "personal": "share"}
COLUMNS = ("overall", "head", "mid", "tail")
GENERIC_MODEL = "generic model"  # the saved generic model, measured on a client's test images

Rows = dict[str, dict[int, dict[str, float]]]  # {row: {seed: {column: percent}}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder with train/ and test/")
    parser.add_argument("--out_dir", type=Path, required=True)
    parser.add_argument("--methods", default="fedavg,fedloge")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tables", action="store_true", help="train nothing")
    options = parser.parse_args()
    if not options.tables:
        if not options.images:
            parser.error("--images is missing: a folder with train/ and test/")
        for seed in map(int, options.seeds.split(",")):
            for method in options.methods.split(","):
                train(method, seed, images=options.images, out=options.out_dir)
    results = read(options.out_dir)
    if not results:
        parser.error(f"--out_dir={options.out_dir} holds no finished run")
    for kind in GROUPS:
        print(f"\n{kind} models\n\n{table(rows_of(results, kind), baseline=BASELINE[kind])}")
    print(f"\n{times(results)}")


def train(method: str, seed: int, *, images: str, out: Path) -> None:
    """One run, unless it is finished."""
    folder = out / f"{method}_seed{seed}"
    if (folder / "results.json").is_file():
        return
    own = [f"--federated_method={method}", f"--seed={seed}", f"--federated_partition_seed={seed}"]
    data = ["--data=folder", "--imbalance=1", f"--data_dir={images}", f"--workdir={folder}"]
    subprocess.run([sys.executable, "-m", "deitlt_tf.federate", f"--flagfile={RECIPE}", *own, *data], check=True)


def read(out: Path) -> dict[tuple[str, int], Mapping[str, Any]]:
    """{(method, seed): what results.json says}."""
    results = {}
    for path in sorted(out.glob("*_seed*/results.json")):
        method, _, seed = path.parent.name.rpartition("_seed")
        results[method, int(seed)] = json.loads(path.read_text())["federated"]
    return results


def rows_of(results: Mapping[tuple[str, int], Mapping[str, Any]], kind: str) -> Rows:
    """The rows of all readings of the generic or the personal models."""
    rows: Rows = {}
    for (method, seed), measured in results.items():
        for reading, numbers in measured[kind].items():
            if reading == GENERIC_MODEL and method != "fedavg":
                continue
            by_group = numbers["mean"] if kind == "personal" else numbers
            rows.setdefault(f"{NAMES[method]}, {reading}", {})[seed] = by_group[GROUPS[kind]]
    return rows


def table(rows: Rows, *, baseline: str) -> str:
    """Markdown: mean and standard deviation over seeds, and the difference to the baseline of the same seed."""
    lines = [
        f"| | seeds | {' | '.join(COLUMNS)} | overall - {baseline} |",
        "|---|---|" + "---|" * (len(COLUMNS) + 1),
    ]
    for name, by_seed in rows.items():
        cells = [spread([numbers[column] for numbers in by_seed.values()]) for column in COLUMNS]
        shared = sorted(by_seed.keys() & rows.get(baseline, {}).keys())
        pairs = [by_seed[seed]["overall"] - rows[baseline][seed]["overall"] for seed in shared]
        lines.append(
            f"| {name} | {len(by_seed)} | {' | '.join(cells)} | {difference(pairs) if name != baseline else ''} |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """mean ± standard deviation; a single number alone."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def difference(values: list[float]) -> str:
    """mean [95 % interval of Student's t]; a single number alone."""
    if not values:
        return ""
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:+.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]"


def times(results: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Processor time of the rounds, minutes, by method."""
    by_method: dict[str, list[float]] = {}
    for (method, _), measured in results.items():
        by_method.setdefault(NAMES[method], []).append(measured["cpu_seconds"] / 60)
    return "processor minutes: " + ", ".join(f"{name} {spread(minutes)}" for name, minutes in by_method.items())


if __name__ == "__main__":
    main()
