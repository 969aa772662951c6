"""The thresholds from which on an answer at a rank is sure: chosen on the validation split, kept in the run's folder.

    thresholds.json   {model file without .keras: {"target", "weights", "taxonomy", "heads": {head: threshold or None}}}

"weights" and "taxonomy" are SHA-256, so that a threshold of other weights or another taxonomy is not used.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.runs.files import read_text, write_json

FILE = "thresholds.json"


def write(
    folder: Path, model: str, thresholds: Mapping[str, float | None], *, target: float, taxonomy: Taxonomy
) -> None:
    """Keep the thresholds of a model of a run.

    folder: of the run. model: its file without .keras. thresholds: {head: what `rollup.choose` returns}.
    target: share of the answers that was to be right, 0..1.
    """
    entry = {"target": target} | _key(folder, model, taxonomy) | {"heads": dict(thresholds)}
    write_json(folder / FILE, _read(folder) | {model: entry})


def read(folder: Path, model: str, head: str, *, taxonomy: Taxonomy) -> float:
    """The threshold of a head of a model of a run. Arguments: see `write`.

    Raises ValueError, which says what to do, if none was chosen for these weights and this taxonomy.
    """
    advice = (
        f"run python -m deitlt_tf.evaluate --workdir={folder} on data with a validation split, or name a number, such "
        "as --threshold=0.9"
    )
    entry = _read(folder).get(model)
    if entry is None:
        raise ValueError(f"no threshold was chosen for {model} in {folder}: {advice}.")
    if {name: entry.get(name) for name in ("weights", "taxonomy")} != _key(folder, model, taxonomy):
        raise ValueError(f"{folder / FILE} is of other weights or of another taxonomy than {model}: {advice}.")
    threshold = entry.get("heads", {}).get(head)
    if not isinstance(threshold, float) or not 0 < threshold < 1:
        raise ValueError(
            f"no threshold up to 0.99 made {100 * entry['target']:g} % of the answers of {model} ({head}) right on the "
            "validation split: lower --sure when you evaluate, or name a number, such as --threshold=0.9."
        )
    return threshold


def _read(folder: Path) -> dict[str, Any]:
    """The content of the file; {} where there is none. Raises ValueError for a damaged one."""
    path = folder / FILE
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and evaluate again.") from error
    return content if isinstance(content, dict) else {}


def _key(folder: Path, model: str, taxonomy: Taxonomy) -> dict[str, str]:
    with (folder / f"{model}.keras").open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "weights": weights,
        "taxonomy": hashlib.sha256(json.dumps(taxonomy.to_dict()).encode()).hexdigest(),
    }
