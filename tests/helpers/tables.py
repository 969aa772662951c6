"""Tables of images for tests: the real sample of Arboretum, and small ones that a test writes."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from helpers import GOLDEN

SAMPLE = GOLDEN / "arboretum" / "arachnida_sample.parquet"


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """A CSV file of these rows, whose columns are the keys of the first."""
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return path


def stand_ins(folder: Path, ids: Iterable[int], data: bytes = b"an image") -> Path:
    """Files where `fetch` puts the images of these ids."""
    for number in ids:
        (folder / f"{number % 1000:03d}").mkdir(parents=True, exist_ok=True)
        (folder / f"{number % 1000:03d}" / f"{number}.jpg").write_bytes(data)
    return folder


def photos(*species, start=0, step=10, **columns):
    """A row for each of these species, with ids start, start + step, ..."""
    genera = [name.split()[0] for name in species]
    rows = [
        {"photo_id": start + i * step, "genus": genus, "species": name}
        for i, (genus, name) in enumerate(zip(genera, species, strict=True))
    ]
    return [row | {name: values[i] for name, values in columns.items()} for i, row in enumerate(rows)]
