"""Figures as data URIs, to stand in a page that needs no network: SVG for plots, PNG or JPEG for pictures.

Small and single, so that a phone shows each at its full width; told apart by marker and dash as well as by colour.
"""

import base64
import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
}
PLAIN = ("#555555", ".", "-")
PHOTOGRAPH = 64  # from this side on a picture is a JPEG
# Names of classes and runs are a user's: "$" in them must not become a formula. One salt: same numbers, same file.
SETTINGS = {"font.size": 9, "svg.hashsalt": "deitlt_tf", "axes.spines.top": False, "axes.spines.right": False}


def plot(draw: Callable[[Axes], None], *, x: str, y: str) -> str:
    """The SVG of one pair of axes that `draw` fills; a legend where several things have a label. x, y: their titles."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(4.6, 3.1), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
        draw(axes)
        axes.set_xlabel(x, parse_math=False)
        axes.set_ylabel(y, parse_math=False)
        labels = axes.get_legend_handles_labels()[1]
        if len(labels) > 1:  # above the axes: among the data its marks would pass for data
            ncols = len(labels) if sum(map(len, labels)) <= 40 else 2
            figure.legend(loc="outside upper left", frameon=False, fontsize=8, ncols=ncols)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return uri("image/svg+xml", file.getvalue())


def uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(image: np.ndarray) -> str:
    """uint8 [H, W, 3] as a PNG, or as a JPEG where it is large."""
    if max(image.shape[:2]) < PHOTOGRAPH:
        return uri("image/png", tf.io.encode_png(image).numpy())
    return uri("image/jpeg", tf.io.encode_jpeg(image, quality=85).numpy())


def overlay(image: np.ndarray, heat: np.ndarray) -> str:
    """`image` under `heat` [g, g], stretched to its own lowest and highest value, yellow = high. uint8 [S, S, 3]."""
    heat = (heat - heat.min()) / max(float(np.ptp(heat)), 1e-12)
    side = max(image.shape[0], 2 * PHOTOGRAPH)
    heat = tf.image.resize(heat[..., None], (side, side)).numpy()[..., 0]
    image = tf.image.resize(image, (side, side), method="nearest").numpy()
    return picture((0.5 * image + 127.5 * colormaps["viridis"](heat)[..., :3]).clip(0, 255).astype(np.uint8))


def lines(
    axes: Axes, x: Sequence[float], named: dict[str, Sequence[float | None]], *, mark: float | None = None
) -> None:
    """A line for each name, gaps where a value is None; a vertical line with the words "re-weighting" at `mark`."""
    for name, values in named.items():
        colour, marker, dash = STYLES.get(name, PLAIN)
        known = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        if known:
            axes.plot(*zip(*known, strict=True), dash, color=colour, marker=marker, markersize=3.5, label=name)
    if mark is not None:
        axes.axvline(mark, color="#888888", linewidth=1)
        axes.annotate(
            "re-weighting ", (mark, 1), xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=8
        )  # fmt: skip


def curves(x: Sequence[float], named: dict[str, Sequence[float | None]], *, y: str, mark: float | None = None) -> str:
    def draw(axes):
        lines(axes, x, named, mark=mark)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return plot(draw, x="epoch", y=y)


def clouds(counts: np.ndarray, named: dict[str, np.ndarray]) -> str:
    """Accuracy of each class (percent) against its training images; means of many classes where there are many."""

    def draw(axes):
        many = len(counts) > 50
        for name, values in named.items():
            colour, marker, dash = STYLES.get(name, PLAIN)
            look = {"s": 8 if many else 26, "alpha": 0.35 if many else 0.9, "linewidths": 0, "rasterized": many}
            axes.scatter(counts, values, color=colour, marker=marker, label=name, **look)
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


def distances(named: dict[str, np.ndarray], *, uniform: float) -> str:
    """named: {model: [L, H] pixels}. A dot for each head, a line for their mean, a grey one for uniform attention."""

    def draw(axes):
        for name, values in named.items():
            colour, marker, dash = STYLES.get(name, PLAIN)
            blocks = np.arange(1, len(values) + 1)
            axes.plot(np.repeat(blocks, values.shape[1]), values.ravel(), marker, color=colour, alpha=0.4, markersize=4)
            axes.plot(blocks, values.mean(1), dash, color=colour, label=f"{name}, mean of heads")
        axes.axhline(uniform, color="#888888", linewidth=1, label="uniform attention")
        axes.set_ylim(0)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return plot(draw, x="block", y="mean attention distance, pixels")


def ranks(named: dict[str, Sequence[int]], *, share: float) -> str:
    def draw(axes):
        lines(axes, range(1, max(map(len, named.values())) + 1), named)
        axes.set_ylim(0)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return plot(draw, x="block", y=f"components for {share:.0%} of the variance")


def reliability(named: dict[str, dict | None]) -> str:
    """named: {group: `answers.reliability`}, below the diagonal surer than right. Bins of < 0.5 % are not drawn."""

    def draw(axes):
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1)
        for name, found in named.items():
            if found:
                bins = [b for b in found["bins"] if b["images"] >= 0.005 * found["images"]]
                lines(axes, [b["confidence"] for b in bins], {name: [b["accuracy"] for b in bins]})
        axes.set(xlim=(0, 1), ylim=(0, 1))

    return plot(draw, x="confidence", y="accuracy")


def shifts(named: dict[str, dict[str, float]]) -> str:
    """named: {row: {"backward 50": percent, ..., "uniform": ..., "forward 50": ...}}."""

    def draw(axes):
        ticks = list(next(iter(named.values())))
        lines(axes, range(len(ticks)), {name: list(row.values()) for name, row in named.items()})
        axes.set_xticks(range(len(ticks)), [t.split()[-1] for t in ticks])
        axes.set_ylim(0)

    return plot(draw, x="tail heavy      test ratio      head heavy", y="top-1 accuracy, %")


def differences(named: dict[str, dict[str, dict | None]]) -> str:
    """named: {run: {group: {value, low, high}}}: a dot with its interval; right of zero the run is better."""

    def draw(axes):
        labels = []
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
