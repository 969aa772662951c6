"""The numbers of a federated run: generic accuracy, personal accuracies of all clients, their mean and spread."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from deitlt_tf.data.taxonomy import Taxonomy
from deitlt_tf.evaluation import hierarchy, metrics, tables
from deitlt_tf.federated import readings
from deitlt_tf.recipes.recipe import Recipe

Hits = Mapping[str, np.ndarray]
Row = dict[str, float | None]


def accuracies(hits: Hits, global_counts: np.ndarray, own_counts: np.ndarray) -> dict[str, dict[str, Row]]:
    """{reading: {convention: {overall, balanced, head, mid, tail}}}, percent.

    hits: {reading: right answers of each class, "total": test images of each class}, int [C] each.
    Head, mid and tail of "shots" and "paper" are those of all clients' training images together, so that they are the
    same for every client; those of "share" are the client's own, as in FedLoGe.
    """
    shared = metrics.accuracies(hits, global_counts)
    own = metrics.accuracies(hits, own_counts, ("share",))
    names = [name for name in hits if name != "total"]
    return {name: {convention: rows[name] for convention, rows in (shared | own).items()} for name in names}


def numbers(
    hits: Mapping[str, Mapping[str, Hits]],
    *,
    generic: Hits | None,
    counts: Mapping[str, np.ndarray],
    taxonomy: Taxonomy | None = None,
) -> dict[str, Any]:
    """{"generic": {reading: accuracies}, "personal": {reading: mean, spread, clients}, "clients": sizes and counts}.

    hits: {client: `Client.hits`}. generic: hits on one test set; None: those of all clients are added up.
    counts: {client: training images of each class}.
    taxonomy: of which the hits are; it adds `hierarchy.results`, with the images of all clients together in the
      personal rows, since a client has few images of most classes.
    The mean is over clients, each with the same weight; clients without test images of a group drop out of its mean.
    The spread is the standard deviation over clients.
    """
    everyone = np.sum(list(counts.values()), 0)
    tested = {name: parts for name, parts in hits.items() if parts}
    if generic is None:
        generic = together(parts["generic"] for parts in tested.values())
    by_client = {name: accuracies(parts["personal"], everyone, counts[name]) for name, parts in tested.items()}
    rows = list(next(iter(by_client.values()), {}))
    personal = together(parts["personal"] for parts in tested.values())
    return {
        "generic": accuracies(generic, everyone, everyone) if generic else {},
        "personal": {row: over_clients({name: x[row] for name, x in by_client.items()}) for row in rows},
        "clients": {
            name: {
                "images": int(own.sum()),
                "counts": own.tolist(),
                "test_images": int(tested[name]["personal"]["total"].sum()) if name in tested else 0,
            }
            for name, own in counts.items()
        },
        **hierarchy.results(of_rows(generic, personal), everyone, taxonomy),
    }


def together(hits: Iterable[Hits]) -> Hits:
    """The hits of several clients, added up; {} where nobody has any."""
    known = [x for x in hits if x]
    return {key: np.sum([x[key] for x in known], 0) for key in known[0]} if known else {}


def of_rows(generic: Hits, personal: Hits) -> dict[str, Hits]:
    """{name of a row: {"cls": its hits, "total": images of each class}}."""
    return {
        f"{kind} {reading}": {"cls": right, "total": hits["total"]}
        for kind, hits in (("generic", generic), ("personal", personal))
        for reading, right in hits.items()
        if reading != "total"
    }


def over_clients(by_client: Mapping[str, Mapping[str, Row]]) -> dict[str, Any]:
    """{"mean", "spread": {convention: {column: number or None}}, "clients": {client: overall accuracy}}."""
    mean: dict[str, Row] = {}
    spread: dict[str, Row] = {}
    for convention in next(iter(by_client.values())):
        mean[convention], spread[convention] = {}, {}
        for column in metrics.COLUMNS:
            values = [x for rows in by_client.values() if (x := rows[convention][column]) is not None]
            mean[convention][column] = float(np.mean(values)) if values else None
            spread[convention][column] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {
        "mean": mean,
        "spread": spread,
        "clients": {name: rows["shots"]["overall"] for name, rows in by_client.items()},
    }


def curve_points(measured: Mapping[str, Any]) -> dict[str, float]:
    """{"generic/READING", "personal/READING": overall accuracy} for the journal."""
    points = {f"generic/{row}": x["shots"]["overall"] for row, x in measured["generic"].items()}
    return points | {f"personal/{row}": x["mean"]["shots"]["overall"] for row, x in measured["personal"].items()}


def file(recipe: Recipe, measured: Mapping[str, Any], *, class_names: Sequence[str]) -> dict[str, Any]:
    """What results.json holds. "saved": the readings whose models are written."""
    generic, personal = readings.saved(recipe.federated)
    federated = {
        "method": recipe.federated.method,
        "rounds": recipe.federated.rounds.count,
        "saved": {"generic": generic, "personal": personal},
        "class_names": list(class_names),
    }
    return {"federated": federated | dict(measured)}


def print_tables(measured: Mapping[str, Any], global_counts: np.ndarray, *, saved: tuple[str | None, str]) -> None:
    """Prints generic accuracies, then personal ones, by both conventions of the tables.

    With a taxonomy, also accuracy by rank of the readings that are `saved`: (generic or None, personal).
    """
    rows = {f"generic {row}": x for row, x in measured["generic"].items()}
    rows |= {f"personal {row}": x["mean"] for row, x in measured["personal"].items()}
    if not rows:
        return
    tables.print_tables(rows, global_counts)
    spreads = {row: x["spread"]["shots"]["overall"] for row, x in measured["personal"].items()}
    parts = [f"{row} {x:.1f}" for row, x in spreads.items() if x is not None]
    if parts:
        tqdm.write(f"personal: mean over clients; standard deviation over clients: {', '.join(parts)}")
    written = {name: name for name in (f"generic {saved[0]}", f"personal {saved[1]}")}
    if by_rank := tables.by_rank_rows(measured, written):
        tables.print_by_rank(by_rank, global_counts)
        tqdm.write("by rank: of the models that are written; personal: the test images of all clients together")
