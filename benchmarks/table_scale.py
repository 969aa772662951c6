"""Memory and start-up of --data=table on synthetic tables as large as BioTrove's parts.

    python -m benchmarks.table_scale --rows=1000000 --folder=runs/scale

writes Parquet files with the columns of BioTrove (33,364 species with a long tail, ids in bursts of uploads), then
starts one process that reads them as a training run does, and prints seconds, CPU seconds and peak memory of each
station. No image is on disk: what the existence of files costs is measured apart, with --files=N empty files.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SPECIES, GENERA, FAMILIES, ORDERS, CLASSES, PHYLA, KINGDOMS = 33_364, 11_506, 1_692, 311, 50, 14, 3
ROWS_OF_A_FILE = 1_000_000


def write_tables(folder: Path, rows: int) -> None:
    """Parquet files of `rows` rows in all, species drawn with n_rank ~ 1 / rank^0.8."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, SPECIES + 1) ** 0.8
    parents = {}
    count = SPECIES
    for rank, above in (("genus", GENERA), ("family", FAMILIES), ("order", ORDERS), ("class", CLASSES)):
        parents[rank] = np.sort(np.concatenate([np.arange(above), rng.integers(0, above, count - above)]))
        count = above
    for rank, above in (("phylum", PHYLA), ("kingdom", KINGDOMS)):
        parents[rank] = np.sort(np.concatenate([np.arange(above), rng.integers(0, above, count - above)]))
        count = above
    names = {"species": pa.array([f"epithet{i % 20_000}" for i in range(SPECIES)])}
    code = np.arange(SPECIES)
    sizes = (("genus", GENERA), ("family", FAMILIES), ("order", ORDERS), ("class", CLASSES), ("phylum", PHYLA))
    codes = {"species": code}
    for rank, size in (*sizes, ("kingdom", KINGDOMS)):
        code = parents[rank][code]
        codes[rank] = code
        names[rank] = pa.array([f"{rank.capitalize()}idae{i}" for i in range(size)])
    last = 0
    for start in range(0, rows, ROWS_OF_A_FILE):
        size = min(ROWS_OF_A_FILE, rows - start)
        steps = np.where(rng.random(size) < 0.4, 1, rng.integers(4, 30, size))
        ids = last + np.cumsum(steps)
        last = int(ids[-1])
        species = rng.choice(SPECIES, size, p=shares / shares.sum())
        columns = {rank: names[rank].take(pa.array(codes[rank][species])) for rank in names}
        genus = columns["genus"].cast(pa.string())
        import pyarrow.compute as pc

        table = pa.table(
            {
                "photo_id": pa.array(ids),
                "scientificName": pc.binary_join_element_wise(genus, columns["species"], " "),
                **{
                    rank: columns[rank]
                    for rank in ("kingdom", "phylum", "class", "order", "family", "genus", "species")
                },
                "common_name": columns["species"],
                "photo_url": pc.binary_join_element_wise(
                    "http://inaturalist-open-data.s3.amazonaws.com/photos/",
                    pa.array(ids).cast(pa.string()),
                    "/medium.jpg",
                    "",
                ),
            }
        )
        pq.write_table(table, folder / f"part_{start // ROWS_OF_A_FILE:04d}.parquet")


def peak() -> float:
    """Most memory of this process so far, MB. Linux."""
    # Not ru_maxrss, which begins with what the process had that started this one.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(folder: Path, images: Path, *, keep: str, max_images: int) -> None:
    """Read the table as a training run does; print a JSON object of {station: [seconds, CPU seconds, peak MB]}."""
    stations: dict[str, list[float]] = {}

    def station(name: str, start: tuple[float, float]) -> tuple[float, float]:
        stations[name] = [
            round(time.perf_counter() - start[0], 2),
            round(time.process_time() - start[1], 2),
            round(peak()),
        ]
        return time.perf_counter(), time.process_time()

    start = time.perf_counter(), time.process_time()
    from deitlt_tf.data import sources

    start = station("import", start)
    notes: list[str] = []
    splits = sources.load(
        "table",
        table=[str(folder)],
        data_dir=str(images),
        keep=keep,
        max_images=max_images,
        complain=lambda error: notes.append(str(error)),
        note=notes.append,
    )
    start = station("splits", start)
    import tensorflow as tf

    from deitlt_tf.data import pipeline
    from deitlt_tf.runs.fingerprint import fingerprints

    start = station("import tensorflow", start)
    fingerprints(splits)
    start = station("fingerprints", start)
    path_at = splits.train.images.in_graph()
    labels = tf.constant(splits.train.labels)
    index_of = lambda position: pipeline.image_at(  # noqa: E731
        position, num_images=len(splits.train), epoch_length=len(splits.train), repeats=1, seed=0
    )
    stream = tf.data.Dataset.range(20_000).map(lambda p: (path_at(index_of(p)), labels[index_of(p)]))
    for _ in stream.batch(1000):
        pass
    station("20,000 paths and labels", start)
    counts = {"train": len(splits.train), "test": len(splits.test), "classes": len(splits.train.class_names)}
    print(json.dumps({"stations": stations, **counts, "notes": notes}))


def write_files(images: Path, folder: Path, count: int) -> None:
    """Empty files for the first `count` images of the table."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        for number in pq.read_table(path, columns=["photo_id"])["photo_id"].to_pylist():
            if not count:
                return
            (images / f"{number % 1000:03d}").mkdir(parents=True, exist_ok=True)
            os.close(os.open(images / f"{number % 1000:03d}" / f"{number}.jpg", os.O_CREAT | os.O_WRONLY))
            count -= 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--keep", default="")
    parser.add_argument("--max_images", type=int, default=0)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    tables, images = options.folder / "tables", options.folder / "images"
    if options.measure:
        measure(tables, images, keep=options.keep, max_images=options.max_images)
        return
    write_tables(tables, options.rows)
    images.mkdir(exist_ok=True)
    write_files(images, tables, options.files)
    subprocess.run([sys.executable, "-m", "benchmarks.table_scale", *sys.argv[1:], "--measure"], check=True)


if __name__ == "__main__":
    main()
