"""Figures as data URIs, for a page that needs no network: SVG for plots, PNG or JPEG for pictures.

Each plot is small and has one pair of axes, so that it fits the width of a phone. Curves differ in marker and dashes as
well as in colour.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours for colour-blind readers: (colour, marker, dashes).
STYLES = {
    "CLS": ("#0072B2", "o", "-"),
    "DIST": ("#D55E00", "^", "--"),
    "mean": ("#222222", "s", "-."),
    "teacher": ("#CC79A7", "D", ":"),
    "ViT": ("#009E73", "v", ":"),
    "student": ("#0072B2", "o", "-"),
    "head": ("#0072B2", "o", "-"),
    "mid": ("#009E73", "s", "--"),
    "tail": ("#D55E00", "^", "-."),
    "generic": ("#0072B2", "o", "-"),
    "personal": ("#D55E00", "^", "--"),
}
PLAIN = ("#555555", ".", "-")
PHOTOGRAPH = 64  # pixels; a picture with a longer side, or this one, is a JPEG
# A fixed salt makes the same numbers give the same file. Names come from users, so texts with a "$" are no formulas.
SETTINGS = {"font.size": 9, "svg.hashsalt": "deitlt_tf", "axes.spines.top": False, "axes.spines.right": False}


def plot(draw: Callable[[Axes], None], *, x: str, y: str) -> str:
    """The SVG of one pair of axes, which `draw` fills. x, y: titles of the axes. Two labels or more give a legend."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(4.6, 3.1), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        axes.set_xlabel(x, parse_math=False)
        axes.set_ylabel(y, parse_math=False)
        labels = axes.get_legend_handles_labels()[1]
        if len(labels) > 1:  # above the axes, because among the data its marks would look like data
            ncols = len(labels) if sum(map(len, labels)) <= 40 else 2
            figure.legend(loc="outside upper left", frameon=False, fontsize=8, ncols=ncols)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return uri("image/svg+xml", file.getvalue())


def uri(kind: str, data: bytes) -> str:
    """A data URI. kind: media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(image: np.ndarray) -> str:
    """uint8 [H, W, 3] as a PNG, or as a JPEG where it is large."""
    if max(image.shape[:2]) < PHOTOGRAPH:
        return uri("image/png", tf.io.encode_png(image).numpy())
    return uri("image/jpeg", tf.io.encode_jpeg(image, quality=85).numpy())


def overlay(image: np.ndarray, heat: np.ndarray) -> str:
    """A picture, half image, half heat map. The colours span the range of `heat`: violet = lowest, yellow = highest.

    image: uint8 [S, S, 3]. heat: [g, g].
    """
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    side = max(image.shape[0], 2 * PHOTOGRAPH)
    heat = tf.image.resize(heat[..., None], (side, side)).numpy()[..., 0]
    image = tf.image.resize(image, (side, side), method="nearest").numpy()
    return picture((0.5 * image + 127.5 * colormaps["viridis"](heat)[..., :3]).clip(0, 255).astype(np.uint8))


def lines(
    axes: Axes, x: Sequence[float], named: Mapping[str, Sequence[float | None]], *, mark: float | None = None
) -> None:
    """A line for each name, without the values that are None; at x = `mark` a vertical line, "re-weighting"."""
    for name, values in named.items():
        colour, marker, dash = STYLES.get(name, PLAIN)
        known = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        if known:
            axes.plot(*zip(*known, strict=True), dash, color=colour, marker=marker, markersize=3.5, label=name)
    if mark is not None:
        axes.axvline(mark, color="#888888", linewidth=1)
        side = "right" if mark > np.mean(axes.get_xlim()) else "left"  # the words go where there is more room
        axes.annotate(
            " re-weighting ", (mark, 1), xycoords=("data", "axes fraction"), ha=side, va="top", fontsize=8
        )  # fmt: skip


def whole_numbers(axes: Axes) -> None:
    """Ticks of the x axis at whole numbers only."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1))


def curves(
    x: Sequence[float],
    named: Mapping[str, Sequence[float | None]],
    *,
    y: str,
    mark: float | None = None,
    unit: str = "epoch",
) -> str:
    """Curves by epoch. x: epochs. named: {name: values}. y: title of the axis. mark: epoch of re-weighting.

    unit: title of the x axis. Defaults to "epoch".
    """

    def draw(axes: Axes) -> None:
        lines(axes, x, named, mark=mark)
        whole_numbers(axes)

    return plot(draw, x=unit, y=y)


def clouds(counts: np.ndarray, named: Mapping[str, np.ndarray]) -> str:
    """Accuracy of each class, percent, against its training images; with more than 50 classes, also means of 12 bins.

    counts: [C], training images. named: {head: [C]}.
    """

    def draw(axes: Axes) -> None:
        many = len(counts) > 50
        for name, values in named.items():
            colour, marker, dash = STYLES.get(name, PLAIN)
            axes.scatter(
                counts,
                values,
                s=8 if many else 26,
                color=colour,
                marker=marker,
                alpha=0.35 if many else 0.9,
                linewidths=0,
                rasterized=many,
                label=name,
            )
            if many:
                groups = np.array_split(np.argsort(counts, kind="stable"), 12)
                middle = [(np.exp(np.log(counts[g]).mean()), values[g].mean()) for g in groups]
                axes.plot(*zip(*middle, strict=True), dash, color=colour, linewidth=2)
        if len(named) == 2 and not many:
            first, second = named.values()
            axes.vlines(counts, first, second, color="#bbbbbb", linewidth=0.8, zorder=0.9)  # behind the marks
        axes.set_xscale("log")
        axes.set_ylim(-3, 103)

    return plot(draw, x="training images of the class (log scale)", y="top-1 accuracy of the class, %")


def by_rank(ranks: Sequence[str], named: Mapping[str, Sequence[dict | None]]) -> str:
    """Accuracy against rank, the finest on the left, a line with intervals for each group.

    ranks: [R]. named: {group: R of {value, low, high} or None}.
    """

    def draw(axes: Axes) -> None:
        for i, (name, bounds) in enumerate(named.items()):
            colour, marker, dash = STYLES.get(name, PLAIN)
            known = [(x, b) for x, b in enumerate(bounds) if b]
            if not known:
                continue
            places = [
                x + 0.06 * (i - (len(named) - 1) / 2) for x, _ in known
            ]  # beside each other, to see all intervals
            values = [b["value"] for _, b in known]
            axes.vlines(places, [b["low"] for _, b in known], [b["high"] for _, b in known], color=colour, linewidth=1)
            axes.plot(places, values, dash, color=colour, marker=marker, markersize=4.5, label=name)
        axes.set_xticks(range(len(ranks)), ranks, parse_math=False)
        axes.set_xlim(-0.3, len(ranks) - 0.7)
        axes.set_ylim(-3, 103)

    return plot(draw, x="rank", y="accuracy, %")


def coverage(curve: Sequence[Mapping], *, finest: str, chosen: float | None) -> str:
    """Accuracy of the answers, and the share of images that is answered, by threshold; a line at the chosen one.

    curve: rows of `rollup.curve`. finest: its finest rank.
    """

    def draw(axes: Axes) -> None:
        x = [row["threshold"] for row in curve]
        drawn = {
            "right, of the answers": ([row["accuracy"] for row in curve], STYLES["mean"]),
            "answered": ([1 - row["coverage"]["nothing"] for row in curve], STYLES["mid"]),
            f"answered at rank {finest}": ([row["coverage"][finest] for row in curve], STYLES["tail"]),
        }
        for name, (values, (colour, marker, dash)) in drawn.items():
            known = [(a, 100 * b) for a, b in zip(x, values, strict=True) if b is not None]
            if known:
                axes.plot(*zip(*known, strict=True), dash, color=colour, marker=marker, markersize=3.5, label=name)
        if chosen:
            axes.axvline(chosen, color="#888888", linewidth=1)
        axes.set_ylim(-3, 103)

    return plot(draw, x="threshold", y="%")


def distances(named: Mapping[str, np.ndarray], *, uniform: float) -> str:
    """A dot for each head, a line for the mean of the heads, a grey line for uniform attention.

    named: {model: [L, H]}, pixels. uniform: pixels.
    """

    def draw(axes: Axes) -> None:
        for name, values in named.items():
            colour, marker, dash = STYLES.get(name, PLAIN)
            blocks = np.arange(1, len(values) + 1)
            axes.plot(np.repeat(blocks, values.shape[1]), values.ravel(), marker, color=colour, alpha=0.4, markersize=4)
            axes.plot(blocks, values.mean(1), dash, color=colour, label=f"{name}, mean of heads")
        axes.axhline(uniform, color="#888888", linewidth=1, label="uniform attention")
        axes.set_ylim(0, 1.05 * max(uniform, *(values.max() for values in named.values())))
        whole_numbers(axes)

    return plot(draw, x="block", y="mean attention distance, pixels")


def ranks(named: Mapping[str, Sequence[int]], *, share: float) -> str:
    """Rank of the features of each token by block. named: {token: [L]}. share: of the variance, for the title."""

    def draw(axes: Axes) -> None:
        lines(axes, range(1, max(map(len, named.values())) + 1), named)
        axes.set_ylim(0)
        whole_numbers(axes)

    return plot(draw, x="block", y=f"components for {100 * share:.0f} % of the variance")


def reliability(named: Mapping[str, Mapping | None]) -> str:
    """Accuracy against confidence. Bins with less than 0.5 % of the images are left out.

    named: {group: what `predictions.reliability` returns}.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
        for name, result in named.items():
            if result:
                bins = [b for b in result["bins"] if b["images"] >= 0.005 * result["images"]]
                lines(axes, [b["confidence"] for b in bins], {name: [b["accuracy"] for b in bins]})
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))  # marks at 0 and 1 are whole

    return plot(draw, x="confidence", y="accuracy")


def shifts(named: Mapping[str, Mapping[str, float]]) -> str:
    """Accuracy by test distribution. named: {row: {"backward 50": percent, ..., "uniform": ..., "forward 50": ...}}."""

    def draw(axes: Axes) -> None:
        ticks = list(next(iter(named.values())))
        lines(axes, range(len(ticks)), {name: list(row.values()) for name, row in named.items()})
        axes.set_xticks(range(len(ticks)), [t.split()[-1] for t in ticks])
        axes.set_ylim(0)

    return plot(draw, x="tail is frequent   ←   test ratio   →   head is frequent", y="top-1 accuracy, %")


def shares(counts: Mapping[str, Sequence[int]], class_names: Sequence[str]) -> str:
    """Training images of each class at each client, as shades on a log scale; white: none.

    counts: {client: [C]}.
    """

    def draw(axes: Axes) -> None:
        table = np.array([*counts.values()], float)
        shades = np.ma.masked_equal(np.log10(np.maximum(table, 1)) + 0.2 * (table > 0), 0)
        axes.grid(False)
        axes.imshow(shades, cmap="Blues", vmin=0, aspect="auto", interpolation="nearest")
        if table.size <= 200:
            for (row, column), number in np.ndenumerate(table):
                dark = shades[row, column] > 0.6 * shades.max() if number else False
                colour = "white" if dark else "#222222"
                axes.text(column, row, f"{number:.0f}", ha="center", va="center", fontsize=6, color=colour)
        if len(class_names) <= 20:
            axes.set_xticks(range(len(class_names)), class_names, rotation=90, parse_math=False)
        if len(counts) <= 25:
            axes.set_yticks(range(len(counts)), [*counts], parse_math=False)

    return plot(draw, x="class", y="client")


def before_and_after(named: Mapping[str, tuple[float | None, float | None]]) -> str:
    """Two dots for each client, joined: its accuracy with the generic and with its personal model, percent."""

    def draw(axes: Axes) -> None:
        for place, (before, after) in enumerate(named.values()):
            if before is not None and after is not None:
                axes.plot([before, after], [-place, -place], color="#bbbbbb", linewidth=0.8, zorder=0.9)
        for label, index in (("generic", 0), ("personal", 1)):
            known = [(pair[index], -place) for place, pair in enumerate(named.values()) if pair[index] is not None]
            if known:
                colour, marker, _ = STYLES[label]
                accuracies, places = zip(*known, strict=True)
                axes.scatter(accuracies, places, s=22, color=colour, marker=marker, label=label)
        axes.set_yticks(range(0, -len(named), -1), [*named] if len(named) <= 25 else [], parse_math=False)

    return plot(draw, x="accuracy on the client's test images, %", y="client")


def differences(named: Mapping[str, Mapping[str, dict | None]]) -> str:
    """A dot with its interval for each run and group; right of zero the run is better than the reference.

    named: {run: {group: {value, low, high} or None}}, points.
    """

    def draw(axes: Axes) -> None:
        labels: list[str] = []
        for run, row in named.items():
            for group, bound in row.items():
                if bound:
                    place, (colour, marker, _) = -len(labels), STYLES.get(group, PLAIN)
                    axes.plot([bound["low"], bound["high"]], [place, place], color=colour)
                    axes.plot(bound["value"], place, marker if marker != "." else "o", color=colour)
                    labels.append(f"{run}: {group}" if len(named) > 1 else group)
        axes.set_yticks(range(0, -len(labels), -1), labels, parse_math=False)
        axes.axvline(0, color="#888888", linewidth=1)

    return plot(draw, x="difference, points, with 95 % intervals", y="")
