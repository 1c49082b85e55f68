"""Static figures: the comparison picture (PNG) and the curves (SVG), seaborn and matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display where the workflow runs

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from unveil.bands import BANDS
from unveil.report.evidence import Evidence
from unveil.report.images import SAR, TRUTH, Row
from unveil.report.summary import order_by
from unveil.scene import PROTOCOLS

INK = "#10161d"
"""Colour of text and axes; replaced by the page's own ink where a figure is inlined."""

FAINT = "#8a94a0"
CELL_PX = 160
GAP_PX = 6
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.45,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
    "svg.hashsalt": "unveil",
    "text.parse_math": False,  # a "$" in a title is a dollar
}
EMPTY = {SAR: "no radar", TRUTH: "no truth"}
MARKERS = "osD^vPX<>ph*"


def palette(methods: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return one colour a method, the same in every figure."""
    names = "colorblind" if len(methods) <= 10 else "husl"
    return dict(zip(methods, sns.color_palette(names, len(methods)), strict=True))


def mae_by_cover(evidence: Evidence) -> Figure | None:
    """Draw occluded MAE against cloud cover: points are scenes, lines join means of places."""
    rows = _mae_rows(evidence.scores)
    if rows.empty:
        return None
    rows = rows.assign(cover=(100 * rows["cloud_cover"]).round(0))
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            for model, colour, marker in _styles(evidence, rows):
                points = inside[inside["model"] == model].sort_values("cover")
                mean = _mean_of_places(points)
                axis.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.4)
                points_style = {"color": colour, "markersize": 4, "markeredgecolor": "none"}
                axis.plot(points["cover"], points["value"], marker, alpha=0.85, **points_style)
                if len(points):
                    label = evidence.methods[model].title
                    axis.plot([], [], marker, linestyle="-", label=label, **points_style)
            _log_axis(axis)
            axis.set(title=protocol, xlabel="cloud cover of the target (%)")
        _finish(figure, axes, "MAE under cloud (reflectance)")
    return figure


def mae_by_band(evidence: Evidence) -> Figure | None:
    """Draw occluded MAE of each band, means of scenes, places pooled."""
    rows = _mae_rows(evidence.band_scores)
    rows = rows[rows["band"].isin(list(BANDS))]
    if rows.empty:
        return None
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            bands = order_by(inside["band"].unique(), list(BANDS))
            for model, colour, marker in _styles(evidence, rows):
                points = inside[inside["model"] == model]
                mean = points.groupby(["band", "place"])["value"].mean().groupby("band").mean()
                axis.plot(
                    range(len(bands)), mean.reindex(bands), marker=marker, color=colour,
                    linewidth=1.2, markersize=4, markeredgecolor="none",
                    label=evidence.methods[model].title if len(points) else None,
                )  # fmt: skip
            axis.set_xticks(range(len(bands)), bands, rotation=60 if len(bands) > 8 else 0)
            _log_axis(axis)
            axis.set(title=protocol, xlabel="band")
        _finish(figure, axes, "MAE under cloud (reflectance)")
    return figure


def picture(rows: Sequence[Row], columns: Sequence[tuple[str, str]], labels: Mapping[str, str]):
    """Draw the comparison picture: a row a scene, a column a method.

    Args:
        rows: the images.
        columns: ``(key, title)`` in print order.
        labels: scene -> text left of its row.

    Returns:
        The figure; None without rows.
    """
    view = "true"
    if not rows or not columns:
        return None
    step = CELL_PX + GAP_PX
    canvas = np.full((len(rows) * step, len(columns) * step, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, (key, _) in enumerate(columns):
            image = row.images.get(view, {}).get(key)
            if image is not None:
                _paste(canvas, image, i * step, j * step)
    height, width = canvas.shape[:2]
    left, top, dpi = 300, 150, 150
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=((width + left) / dpi, (height + top) / dpi), dpi=dpi)
        axis = figure.add_axes(
            (left / (width + left), 0, width / (width + left), height / (height + top))
        )
        axis.imshow(canvas, interpolation="none", aspect="auto")
        axis.axis("off")
        for j, (_, title) in enumerate(columns):
            axis.text(
                j * step + CELL_PX / 2, -12, _wrap(title), ha="center", va="bottom", fontsize=8
            )
        for i, row in enumerate(rows):
            axis.text(
                -14, i * step + CELL_PX / 2, labels[row.scene], ha="right", va="center", fontsize=7
            )
            for j, (key, _) in enumerate(columns):
                if key not in row.images.get(view, {}):
                    axis.text(
                        j * step + CELL_PX / 2, i * step + CELL_PX / 2, EMPTY.get(key, "no result"),
                        ha="center", va="center", fontsize=7, color=FAINT,
                    )  # fmt: skip
    return figure


def placeholder(text: str) -> Figure:
    """Return a figure that says why it is empty."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(6, 1.6))
        figure.text(0.5, 0.5, text, ha="center", va="center", wrap=True)
    return figure


def save(figure: Figure | None, path: Path, *, empty: str) -> None:
    """Write a figure on white; where there is none, one that says ``empty``."""
    figure = figure or placeholder(empty)
    with plt.rc_context(STYLE):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(path, dpi=150, facecolor="white", metadata=metadata)
    plt.close(figure)


def to_inline_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as an SVG element for the page: transparent, in the page's ink.

    Args:
        figure: the figure, not closed.
        prefix: put before every id, so that two figures do not share one.
    """
    stream = io.StringIO()
    with plt.rc_context(STYLE | {"svg.hashsalt": prefix}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r"font: ([^;\"]*?)'[^\";]*", r"font: \g<1>sans-serif", svg)
    return re.sub(
        r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"',
        r'<svg \1\2 aria-hidden="true"',
        svg,
        count=1,
    )


def _mae_rows(scores: pd.DataFrame) -> pd.DataFrame:
    rows = scores[(scores["region"] == "occluded") & (scores["metric"] == "MAE")]
    return rows[rows["value"] > 0]  # a logarithmic axis has no zero


def _mean_of_places(points: pd.DataFrame) -> pd.Series:
    return points.groupby(["cover", "place"])["value"].mean().groupby("cover").mean()


def _styles(evidence: Evidence, rows: pd.DataFrame):
    present = set(rows["model"])
    models = [model for model in evidence.methods if model in present]
    colours = palette(models)
    for number, model in enumerate(models):
        baseline = evidence.methods[model].is_baseline
        yield model, FAINT if baseline else colours[model], MARKERS[number % len(MARKERS)]


def _panels(protocols: Iterable[str], *, width: float, height: float):
    names = order_by(protocols, PROTOCOLS)
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=(width * len(names) + 2.2, height),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    return figure, dict(zip(names, axes[0], strict=True))


def _log_axis(axis) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, axes: Mapping[str, plt.Axes], label: str) -> None:
    next(iter(axes.values())).set_ylabel(label)
    entries = {}
    for axis in axes.values():
        entries |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside right center", fontsize=8)


def _paste(canvas: np.ndarray, image: np.ndarray, top: int, left: int) -> None:
    factor = CELL_PX / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    scaled = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    y, x = top + (CELL_PX - size[1]) // 2, left + (CELL_PX - size[0]) // 2
    canvas[y : y + size[1], x : x + size[0]] = scaled


def _wrap(title: str, width: int = 16) -> str:
    lines = [""]
    for word in title.split():
        fits = len(lines[-1]) + len(word) < width
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
    return "\n".join(line for line in lines if line)
