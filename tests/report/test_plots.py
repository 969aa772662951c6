"""Plots and pictures as data URIs: what is drawn can be read again, and the same numbers give the same file."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tensorflow as tf

from deitlt_tf.report import plots

BOUND = {"value": 1.0, "low": 0.5, "high": 1.5}
CURVE = [
    {"threshold": t, "coverage": {"s": 1 - t, "nothing": t / 2}, "accuracy": None if t > 0.9 else t}
    for t in (0.5, 0.95)
]
PLOTS = {
    "curves": lambda: plots.curves([1, 2, 3], {"CLS": [1.0, None, 2.0], "other": [3.0, 2.0, 1.0]}, y="loss", mark=2),
    "clouds": lambda: plots.clouds(np.array([9, 90]), {"CLS": np.array([10.0, 90.0]), "DIST": np.array([20.0, 80.0])}),
    "many": lambda: plots.clouds(np.arange(1, 61), {"ViT": np.linspace(0, 100, 60)}),
    "distances": lambda: plots.distances({"student": np.ones((2, 3))}, uniform=2.0),
    "ranks": lambda: plots.ranks({"CLS": [3, 4], "DIST": [2, 5]}, share=0.95),
    "shifts": lambda: plots.shifts({"CLS": {"backward 2": 30.0, "uniform": 40.0, "forward 2": 50.0}}),
    "by_rank": lambda: plots.by_rank(
        ["s", "$\\frac{"], {"head": [BOUND, BOUND], "tail": [None, BOUND], "mid": [None, None]}
    ),
    "coverage": lambda: plots.coverage(CURVE, finest="s", chosen=0.7),
    "shares": lambda: plots.shares({"north": [9, 0, 1], "$x": [0, 300, 2]}, ["a", "b$", "c"]),
    "before": lambda: plots.before_and_after({"north": (40.0, 60.0), "$x": (None, 50.0), "west": (None, None)}),
    "differences": lambda: plots.differences({"second": {"head": BOUND, "tail": None}}),
}


def body(uri: str, kind: str) -> bytes:
    prefix = f"data:{kind};base64,"
    assert uri.startswith(prefix)
    return base64.b64decode(uri.removeprefix(prefix))


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_the_same_svg_each_time(name):
    svg = body(PLOTS[name](), "image/svg+xml")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert body(PLOTS[name](), "image/svg+xml") == svg


def test_names_of_users_are_no_formulas():
    name = "$\\frac{"
    svg = body(plots.differences({name: {"head": BOUND}, "other": {"head": BOUND}}), "image/svg+xml")
    assert ElementTree.fromstring(svg) is not None


def test_reliability_leaves_out_bins_of_few_images():
    bins = [
        {"confidence": 0.3, "accuracy": 0.2, "images": 1},
        {"confidence": 0.9, "accuracy": 0.7, "images": 999},
    ]
    both = plots.reliability({"head": {"images": 1000, "bins": bins}, "tail": None})
    assert both == plots.reliability({"head": {"images": 1000, "bins": bins[1:]}, "tail": None})


@pytest.mark.parametrize(("side", "kind", "tolerance"), [(16, "image/png", 0), (200, "image/jpeg", 12)])
def test_small_pictures_are_exact_and_large_ones_are_jpeg(side, kind, tolerance):
    ramp = np.linspace(0, 255, side)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp, 127.0), -1).astype(np.uint8)
    decoded = tf.io.decode_image(body(plots.picture(image), kind)).numpy()
    assert decoded.shape == image.shape and np.abs(decoded.astype(int) - image).max() <= tolerance


def test_an_overlay_is_brightest_where_the_heat_is():
    heat = np.array([[0.0, 0.1], [0.1, 1.0]])
    picture = tf.io.decode_image(body(plots.overlay(np.zeros((8, 8, 3), np.uint8), heat), "image/jpeg")).numpy()
    assert picture.shape == (128, 128, 3)
    low, high = picture[:20, :20].mean((0, 1)), picture[-20:, -20:].mean((0, 1))
    assert high[1] > low[1] + 50  # viridis: from violet to yellow
    even = plots.overlay(np.zeros((8, 8, 3), np.uint8), np.ones((2, 2)))
    assert body(even, "image/jpeg")
