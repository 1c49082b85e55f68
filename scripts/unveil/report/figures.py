"""Static figures: the comparison picture (PNG) and the curves (SVG), seaborn and matplotlib."""

from __future__ import annotations

import io
import math
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
from unveil.report.summary import level_of, order_by
from unveil.scene import PROTOCOLS

INK = "#10161d"
"""Colour of text and axes; replaced by the page's own ink where a figure is inlined."""

FAINT = "#8a94a0"
PX_PER_INCH = 100
CELL_PX = 160
LABEL_PX = 290
MAX_ROWS = 30
DPI = 150
PICTURE_VIEW = "true"
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
DAYS = "days_to_clear_look"
MARKERS = "osD^vPX<>ph*"


def palette(methods: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return one colour a method, the same in every figure; grey is left to the baseline."""
    # Neither grey, which is the baseline's, nor too pale to be seen on white.
    colours = [c for c in sns.color_palette("colorblind") if max(c) - min(c) > 0.2 and sum(c) < 2]
    if len(methods) > len(colours):
        wheel = sns.husl_palette(len(methods), l=0.55)
        step = math.ceil(len(methods) / 3)  # neighbours in the legend differ in hue
        colours = [colour for start in range(step) for colour in wheel[start::step]]
    return dict(zip(methods, colours, strict=False))


def mae_by_cover(evidence: Evidence, bounds: Sequence[float]) -> Figure | None:
    """Draw occluded MAE against cloud cover: points are scenes, lines join cloud levels.

    Args:
        evidence: the scores.
        bounds: cloud cover between the levels, fractions.

    Returns:
        The figure; None when no method but the baseline has a score.
    """
    rows = _mae_rows(evidence, evidence.scores)
    if rows.empty:
        return None
    rows = rows.assign(level=level_of(rows["cloud_cover"], bounds))
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            for model, colour, marker in _styles(evidence, rows):
                points = inside[inside["model"] == model]
                if points.empty:
                    continue
                style = {"color": colour, "markersize": 4, "markeredgecolor": "none"}
                axis.plot(100 * points["cloud_cover"], points["value"], marker, alpha=0.6, **style)
                means = _level_means(points)
                label = evidence.methods[model].title
                axis.plot(100 * means["cloud_cover"], means["value"], color=colour, linewidth=1.5)
                axis.plot([], [], marker, linestyle="-", label=label, **style)
            _log_axis(axis)
            axis.set(title=protocol, xlabel="cloud cover of the target (%)", xlim=(0, 102))
        _finish(figure, axes, "MAE under cloud (reflectance)")
    return figure


def mae_by_band(evidence: Evidence) -> Figure | None:
    """Draw occluded MAE of each band, means of scenes, places pooled."""
    rows = _mae_rows(evidence, evidence.band_scores)
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


def mae_by_days(evidence: Evidence, *, min_places: int) -> Figure | None:
    """Draw occluded MAE against the days to the nearest clear look.

    Points are scenes, lines join the strata of ``days.csv``; the interval over places is
    shaded where there are at least ``min_places`` of them.

    Returns:
        The figure; None when no scene has both.
    """
    facts = evidence.scores[evidence.scores["metric"] == DAYS]
    facts = facts[facts["region"] == "occluded"].dropna(subset=["value"])
    days = facts.drop_duplicates("scene").set_index("scene")["value"]
    rows = _mae_rows(evidence, evidence.scores)
    rows = rows.assign(days=rows["scene"].map(days)).dropna(subset=["days"])
    if rows.empty:
        return None
    strata = evidence.statistics.days
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            for model, colour, marker in _styles(evidence, rows):
                points = inside[inside["model"] == model]
                if points.empty:
                    continue
                style = {"color": colour, "markersize": 4, "markeredgecolor": "none"}
                axis.plot(points["days"], points["value"], marker, alpha=0.6, **style)
                chosen = (strata["protocol"] == protocol) & (strata["model"] == model)
                line = strata[chosen].sort_values("days")
                axis.plot(line["days"], line["mean"], color=colour, linewidth=1.5)
                sure = line["n_places"] >= min_places
                if sure.any():
                    low, high = line["low"].where(sure), line["high"].where(sure)
                    axis.fill_between(line["days"], low, high, color=colour, alpha=0.15, lw=0)
                label = evidence.methods[model].title
                axis.plot([], [], marker, linestyle="-", label=label, **style)
            _log_axis(axis)
            axis.set(title=protocol, xlabel="days to the nearest clear look")
        _finish(figure, axes, "MAE under cloud (reflectance)")
    return figure


def cost(evidence: Evidence) -> Figure | None:
    """Draw occluded MAE against computing time, with the frontier of what no one beats.

    Only methods that are ranked on the same places are drawn; times below the resolution
    of the record, a millisecond, count as one.

    Returns:
        The figure; None when no ranked method but the baseline has a time.
    """
    spent = evidence.manifest.get("costs", {})
    seconds = {
        model: 1e6 * max(entry["model_seconds"], 1e-3) / entry["pixels"]
        for model, entry in spent.items()
        if entry.get("pixels") and entry.get("model_seconds") is not None
    }
    rows = _ranked(evidence).dropna(subset=["mean_rank"])
    rows = rows.assign(seconds=rows["model"].map(seconds)).dropna(subset=["seconds"])
    rows = rows[rows["mean"] > 0]
    rows = rows[rows["protocol"].isin(_protocols_with_methods(evidence, rows))]
    if rows.empty:
        return None
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            edge = _frontier(inside)
            axis.plot(edge["seconds"], edge["mean"], color=FAINT, linewidth=1, zorder=1)
            for model, colour, marker in _styles(evidence, rows):
                point = inside[inside["model"] == model]
                title = evidence.methods[model].title if len(point) else None
                axis.plot(
                    point["seconds"], point["mean"], marker, color=colour, markersize=7,
                    markeredgecolor="none", label=title,
                )  # fmt: skip
            axis.set_xscale("log")
            _log_axis(axis)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set(title=protocol, xlabel="computing time (s/Mpx)")
        _finish(figure, axes, "MAE under cloud (reflectance)")
    return figure


def critical_difference(evidence: Evidence, *, min_places: int) -> Figure | None:
    """Draw the mean ranks over places; a bar joins what is not distinguishable.

    Returns:
        The figure, a panel a protocol with ``min_places``; None when no protocol has them.
    """
    rows = _ranked(evidence).dropna(subset=["mean_rank", "critical_difference"])
    rows = rows[rows["n_ranked"] >= min_places]
    if rows.empty:
        return None
    names = order_by(rows["protocol"].unique(), PROTOCOLS)
    most = rows["protocol"].value_counts().max()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(names), figsize=(5.4 * len(names), 1.6 + 0.24 * most),
            squeeze=False, layout="constrained",
        )  # fmt: skip
        for protocol, axis in zip(names, axes[0], strict=True):
            _rank_panel(evidence, rows[rows["protocol"] == protocol], axis)
    return figure


def _rank_panel(evidence: Evidence, rows: pd.DataFrame, axis: plt.Axes) -> None:
    """Draw one protocol: best on top, a dot a method, and a bar a clique at the right."""
    rows = rows.sort_values("mean_rank").reset_index(drop=True)
    titles = [evidence.methods[model].title for model in rows["model"]]
    axis.plot(rows["mean_rank"], rows.index, "o", color=INK, markersize=5)
    axis.set_yticks(rows.index, [_wrap(title, 36) for title in titles])
    groups = rows["cliques"].fillna("").astype(str).str.split()
    worst = rows["mean_rank"].max()
    for number, name in enumerate(dict.fromkeys(name for group in groups for name in group)):
        members = rows.index[[name in group for group in groups]]
        x = worst + (0.06 + 0.04 * number) * max(worst, 2)
        axis.plot([x, x], [members.min() - 0.25, members.max() + 0.25], color=INK, linewidth=3)
    gap = rows["critical_difference"].iloc[0]
    axis.plot([1, 1 + gap], [-1, -1], "|-", color=INK, linewidth=1, markersize=6)
    axis.text(1, -1.3, f"critical difference {gap:.2f}", fontsize=8, va="bottom")
    axis.set_ylim(len(rows) - 0.4, -2.3)
    places = int(rows["n_ranked"].iloc[0])
    axis.set(title=rows["protocol"].iloc[0], xlabel=f"mean rank over {places} places, 1 is best")
    axis.grid(axis="y", visible=False)


def calibration(evidence: Evidence) -> Figure | None:
    """Draw how often the truth lies in the central interval of a given probability.

    Returns:
        The figure; None when no method gives a standard deviation.
    """
    rows = evidence.scores[evidence.scores["region"] == "occluded"].dropna(subset=["value"])
    rows = rows[rows["metric"].str.startswith("coverage_")]
    if rows.empty:
        return None
    rows = rows.assign(nominal=rows["metric"].str.removeprefix("coverage_").astype(float))
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=3.9, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            axis.plot([0, 100], [0, 100], color=FAINT, linewidth=1)
            for model, colour, marker in _styles(evidence, rows):
                points = inside[inside["model"] == model]
                if points.empty:
                    continue
                mean = points.groupby(["nominal", "place"])["value"].mean()
                mean = mean.groupby("nominal").mean()
                label = evidence.methods[model].title
                axis.plot(mean.index, 100 * mean, marker, color=colour, ls="-", ms=4, label=label)
            axis.set(title=protocol, xlabel="central interval (%)", xlim=(0, 100), ylim=(0, 100))
        _finish(figure, axes, "truth inside (% of hidden values)")
    return figure


def _ranked(evidence: Evidence) -> pd.DataFrame:
    """Return the ranking by MAE over all cloud levels."""
    rows = evidence.statistics.ranking
    return rows[(rows["metric"] == "MAE") & (rows["level"] == "all")]


def _frontier(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points that none beats in both time and error, fastest first."""
    ordered = points.sort_values(["seconds", "mean"])
    return ordered[ordered["mean"] < ordered["mean"].cummin().shift(fill_value=np.inf)]


def picture(
    rows: Sequence[Row], columns: Sequence[tuple[str, str]], labels: Mapping[str, str]
) -> Figure | None:
    """Draw the comparison picture: a row a scene, a column a method.

    Args:
        rows: the images; of more than ``MAX_ROWS`` an even spread is drawn.
        columns: ``(key, title)`` in print order.
        labels: scene -> text left of its row.

    Returns:
        The figure; None without rows.
    """
    if not rows:
        return None
    spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).round())
    rows = [rows[int(position)] for position in spread]
    canvas = _mosaic(rows, [key for key, _ in columns])
    height, width = canvas.shape[:2]
    titles = [_wrap(title) for _, title in columns]
    lines = max(title.count("\n") + 1 for title in titles)
    left, top = LABEL_PX, 24 + 21 * lines
    size = ((width + left) / DPI, (height + top) / DPI)
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=size, dpi=DPI)
        figure.figimage(canvas, xo=left, yo=0, zorder=-1)  # pixel by pixel
        axis = figure.add_axes(
            (left / (width + left), 0, width / (width + left), height / (height + top))
        )
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.axis("off")
        middles = CELL_PX / 2 + (CELL_PX + GAP_PX) * np.arange(max(len(rows), len(columns)))
        for x, title in zip(middles, titles, strict=False):
            axis.text(x, -12, title, ha="center", va="bottom", fontsize=8)
        for y, row in zip(middles, rows, strict=False):
            axis.text(-14, y, labels[row.scene], ha="right", va="center", fontsize=7)
            for x, (key, _) in zip(middles, columns, strict=False):
                if key not in row.images.get(PICTURE_VIEW, {}):
                    text = EMPTY.get(key, "no result")
                    axis.text(x, y, text, ha="center", va="center", fontsize=7, color=FAINT)
    return figure


def _mosaic(rows: Sequence[Row], keys: Sequence[str]) -> np.ndarray:
    """Paste all cells on white, ``(H, W, 3)`` uint8."""
    step = CELL_PX + GAP_PX
    canvas = np.full((len(rows) * step, len(keys) * step, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, key in enumerate(keys):
            image = row.images.get(PICTURE_VIEW, {}).get(key)
            if image is not None:
                _paste(canvas, image, i * step, j * step)
    return canvas


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
        figure.savefig(path, dpi=DPI, facecolor="white", metadata=metadata)
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
    width = f'style="width:{PX_PER_INCH * figure.get_figwidth():.0f}px"'
    size = r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"'
    return re.sub(size, rf'<svg \1\2 {width} aria-hidden="true"', svg, count=1)


def _mae_rows(evidence: Evidence, scores: pd.DataFrame) -> pd.DataFrame:
    """Return occluded MAE of the protocols in which more than the baseline has a score."""
    rows = scores[(scores["region"] == "occluded") & (scores["metric"] == "MAE")]
    rows = rows[rows["value"] > 0]  # a logarithmic axis has no zero
    return rows[rows["protocol"].isin(_protocols_with_methods(evidence, rows))]


def _protocols_with_methods(evidence: Evidence, rows: pd.DataFrame) -> np.ndarray:
    methods = [m.id for m in evidence.methods.values() if not m.is_baseline]
    return rows.loc[rows["model"].isin(methods), "protocol"].unique()


def _level_means(points: pd.DataFrame) -> pd.DataFrame:
    """Pool cover and error of each cloud level: scenes of a place first, then places."""
    columns = ["cloud_cover", "value"]
    return points.groupby(["level", "place"])[columns].mean().groupby("level").mean()


def _styles(evidence: Evidence, rows: pd.DataFrame):
    present = set(rows["model"])
    models = [model for model in evidence.methods if model in present]
    colours = palette([model for model in models if not evidence.methods[model].is_baseline])
    for number, model in enumerate(models):
        yield model, colours.get(model, FAINT), MARKERS[number % len(MARKERS)]


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
