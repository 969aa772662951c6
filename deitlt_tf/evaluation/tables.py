"""Accuracies as tables: what head, mid and tail are, rows of models and heads."""

from tqdm import tqdm

from deitlt_tf.evaluation import metrics


def describe_groups(class_counts, convention: str) -> str:
    """One line that says what head, mid and tail are here, e.g. `shots: head = many > 100 images (3 classes), ...`."""
    sizes = [len(members) for members in metrics.groups(class_counts, convention).values()]
    if convention == "shots":
        words = ("many > 100 images", "medium 20..100", "few < 20")
    else:
        words = ("most frequent", "between", "rarest")
    parts = [
        f"{group} = {word} ({size} classes)" for group, word, size in zip(metrics.GROUPS, words, sizes, strict=True)
    ]
    return f"{convention}: " + ", ".join(parts)


def format_table(rows: dict[str, dict[str, float | None]], *, title: str) -> str:
    """Rows CLS / DIST / mean / ..., columns overall / head / mid / tail, top-1 accuracy in percent."""
    width = max(len(name) for name in rows)
    lines = [title, " ".join([" " * width, *(f"{column:>8}" for column in ("overall", *metrics.GROUPS))])]
    for name, row in rows.items():
        cells = (row[column] for column in ("overall", *metrics.GROUPS))
        lines.append(" ".join([f"{name:<{width}}", *(f"{'-' if x is None else f'{x:.1f}':>8}" for x in cells)]))
    return "\n".join(lines)


def print_tables(rows: dict[str, dict], class_counts) -> None:
    """rows: {name: {convention: {overall, head, mid, tail}}}."""
    for convention in ("shots", "paper"):
        title = "top-1 accuracy, %; " + describe_groups(class_counts, convention)
        tqdm.write("\n" + format_table({name: row[convention] for name, row in rows.items()}, title=title))


def rows_of(prefix: str, measured: dict[str, dict[str, dict]]) -> dict[str, dict]:
    """{convention: {head: row}} of one model as table rows `prefix head`: {name: {convention: row}}."""
    labels = {"cls": "CLS", "dist": "DIST", "mean": "mean"}
    heads = next(iter(measured.values()))
    names = {head: f"{prefix} {labels[head]}" if len(heads) > 1 else prefix for head in heads}
    return {names[head]: {c: measured[c][head] for c in measured} for head in heads}
