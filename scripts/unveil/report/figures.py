"""Static figures: the comparison picture (PNG) and the curves (SVG), seaborn and matplotlib."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")  # no display where the workflow runs

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as MapPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

from unveil import raster
from unveil.bands import BANDS
from unveil.metrics.levels import ALL, level_of
from unveil.protocols import PROTOCOLS, title_of
from unveil.report.findings import Findings
from unveil.report.images import CLOUDY, SAR, TRUTH, Row
from unveil.report.order import best_of_each, order_by
from unveil.report.places import Place
from unveil.report.spectra import Spectra

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType

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
MOST_POINTS = 400
"""Most scenes of a model that a figure draws: more hide each other, and cost the page megabytes."""
STYLE: dict[RcKeyType, Any] = {
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
MOST_COLOURS = 7
"""Models with a colour of their own, the best ones; more cannot be told apart."""

FLOOR = "floor: what the dates of the pairs differ by, after one line per band"
OTHERS = "the other models"
PALE = "#c9cfd6"
MARGIN_DEGREES, LEAST_SPAN = 3.0, (60.0, 24.0)
"""Of the map: land around the places, and the least width and height, degrees."""

MOST_LABELS = 3
"""Names of places written beside one spot of the map."""


def palette(methods: Sequence[str]) -> dict[str, str]:
    """Return the colours of the best models, the same in every figure.

    Args:
        methods: ids, best first; grey is left to the baseline and to those without a colour.
    """
    # Neither grey, nor too pale to be seen on white.
    colours = [c for c in sns.color_palette("colorblind") if max(c) - min(c) > 0.2 and sum(c) < 2]
    colours = [matplotlib.colors.to_hex(colour) for colour in colours][:MOST_COLOURS]
    return dict(zip(methods, colours, strict=False))


def mae_by_cover(findings: Findings, bounds: Sequence[float], *, min_places: int) -> Figure | None:
    """Draw occluded MAE against cloud cover: points are scenes, lines join cloud levels.

    Lines join the means over places of ``ranking.csv``; the interval over places is shaded
    where there are at least ``min_places`` of them.

    Args:
        findings: the scores.
        bounds: cloud cover between the levels, fractions.
        min_places: fewest places for an interval.

    Returns:
        The figure; None when no model but the baseline has a score.
    """
    rows = _mae_rows(findings)
    if rows.empty:
        return None
    cover = rows["cloud_cover"]
    rows = rows.assign(x=100 * cover, level=level_of(cover.to_numpy(), bounds))
    middles = rows.groupby(["protocol", "level"])["x"].mean().rename("position").reset_index()
    ranking = findings.statistics.ranking
    lines = ranking[ranking["metric"] == "MAE"].merge(middles, on=["protocol", "level"])
    label = "cloud cover of the target (%)"
    return _points_and_lines(findings, rows, lines, label, min_places)


def mae_by_days(findings: Findings, *, min_places: int) -> Figure | None:
    """Draw occluded MAE against the days to the nearest clear look.

    As :func:`mae_by_cover`, with the strata of ``strata.csv``.

    Returns:
        The figure; None when no scene has both.
    """
    facts = findings.scores[findings.scores["metric"] == DAYS]
    facts = facts[facts["region"] == "occluded"].dropna(subset=["value"])
    days = facts.drop_duplicates("scene").set_index("scene")["value"]
    rows = _mae_rows(findings)
    rows = rows.assign(x=rows["scene"].map(days)).dropna(subset=["x"])
    if rows.empty:
        return None
    lines = findings.statistics.strata
    lines = lines[lines["by"] == DAYS]
    label = "days to the nearest clear look"
    return _points_and_lines(findings, rows, lines, label, min_places)


def spread(points: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most so many points, evenly spread over the order of their ``x``."""
    if len(points) <= most:
        return points
    ordered = points.sort_values("x", kind="stable")
    return ordered.iloc[np.linspace(0, len(points) - 1, most).round().astype(int)]


def _points_and_lines(
    findings: Findings, rows: pd.DataFrame, lines: pd.DataFrame, label: str, min_places: int
) -> Figure:
    """Draw scenes as points (``x``, ``value``), strata as lines (``position``, ``mean``)."""
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            of_protocol = lines[lines["protocol"] == protocol].sort_values("position")
            for look in looks(findings, rows["model"]):
                points = spread(inside[inside["model"] == look.model], MOST_POINTS)
                if points.empty:
                    continue
                style = {"color": look.colour, "markersize": 4, "markeredgecolor": "none"}
                axis.plot(points["x"], points["value"], look.marker, alpha=0.6, **style)
                line = of_protocol[of_protocol["model"] == look.model]
                width = 1.6 if look.strong else 0.8
                axis.plot(line["position"], line["mean"], color=look.colour, linewidth=width)
                sure = line["n_places"] >= min_places
                if look.strong and sure.any():
                    low, high = line["low"].where(sure), line["high"].where(sure)
                    style_of_band = {"color": look.colour, "alpha": 0.15, "lw": 0}
                    axis.fill_between(line["position"], low, high, **style_of_band)
                axis.plot([], [], look.marker, linestyle="-", label=look.label, **style)
            _draw_floor(findings, protocol, axis)
            _log_axis(axis)
            axis.set(xlabel=label, xlim=(0, 1.04 * rows["x"].max()))
        _finish(figure, list(axes.values()), "MAE under cloud (reflectance)")
    return figure


def mae_by_band(findings: Findings) -> Figure | None:
    """Draw the pooled occluded MAE of each band as bars, the best models side by side.

    The cloudy input is left out, for its bars would flatten all others.

    Returns:
        The figure; None when no model but the baseline has a score by band.
    """
    rows = findings.statistics.pooled
    rows = rows[rows["band"].isin(list(BANDS))]
    rows = rows[rows["protocol"].isin(_protocols_with_methods(findings, rows))]
    if rows.empty:
        return None
    with plt.rc_context(STYLE):
        protocols = rows["protocol"].unique()
        figure, axes = _panels(protocols, width=9.0, height=3.0, rows=len(protocols))
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            drawn = [
                look
                for look in reversed(looks(findings, inside["model"]))
                if look.strong and not findings.methods[look.model].is_baseline
            ]
            bands = order_by(inside["band"].unique(), list(BANDS))
            width = 0.84 / len(drawn)
            for number, look in reversed(list(enumerate(drawn))):
                mean = inside[inside["model"] == look.model].set_index("band")["value"]
                x = np.arange(len(bands)) + width * (number - (len(drawn) - 1) / 2)
                height = mean.reindex(bands)
                axis.bar(x, height, width * 0.94, color=look.colour, label=look.label)
            _draw_floor(findings, protocol, axis)
            axis.set_xticks(range(len(bands)), bands)
            axis.grid(axis="x", visible=False)
            axis.set(ylabel="MAE under cloud (reflectance)")
        _finish(figure, list(axes.values()), "MAE under cloud (reflectance)")
    return figure


def cost(findings: Findings) -> Figure | None:
    """Draw occluded MAE against computing time, with the frontier of what no one beats.

    Only models that are ranked on the same places are drawn; times below the resolution
    of the record, a millisecond, count as one.

    Returns:
        The figure; None when no ranked model but the baseline has a time.
    """
    spent = findings.manifest.get("costs", {})
    seconds = {
        model: 1e6 * max(entry["model_seconds"], 1e-3) / entry["pixels"]
        for model, entry in spent.items()
        if entry.get("pixels") and entry.get("model_seconds") is not None
    }
    rows = _ranked(findings).dropna(subset=["mean_rank"])
    rows = rows.assign(seconds=rows["model"].map(seconds)).dropna(subset=["seconds"])
    rows = rows[rows["mean"] > 0]
    rows = rows[rows["protocol"].isin(_protocols_with_methods(findings, rows))]
    if rows.empty:
        return None
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=4.4, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            edge = _frontier(inside)
            axis.plot(edge["seconds"], edge["mean"], color=FAINT, linewidth=1, zorder=1)
            for look in looks(findings, inside["model"]):
                point = inside[inside["model"] == look.model]
                count = findings.methods[look.model].parameters
                label = look.label
                if count and look.strong:
                    label += f" ({count:,} parameters)".replace(",", " ")
                axis.plot(
                    point["seconds"], point["mean"], look.marker, color=look.colour,
                    markersize=7, markeredgecolor="none", label=label,
                )  # fmt: skip
            _draw_floor(findings, protocol, axis)
            axis.set_xscale("log")
            _log_axis(axis)
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set(xlabel="computing time (s/Mpx)")
        _finish(figure, list(axes.values()), "MAE under cloud (reflectance)")
    return figure


def critical_difference(findings: Findings, *, min_places: int) -> Figure | None:
    """Draw the mean ranks over places; a bar joins what is not distinguishable.

    Returns:
        The figure, one panel per protocol with ``min_places``; None when no protocol has them.
    """
    rows = _ranked(findings).dropna(subset=["mean_rank", "critical_difference"])
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
            _rank_panel(findings, rows[rows["protocol"] == protocol], axis)
    return figure


def _rank_panel(findings: Findings, rows: pd.DataFrame, axis: plt.Axes) -> None:
    """Draw one protocol: best on top, one dot per model, and one bar per clique at the right."""
    rows = rows.sort_values("mean_rank").reset_index(drop=True)
    titles = [findings.methods[model].title for model in rows["model"]]
    axis.plot(rows["mean_rank"], rows.index, "o", color=INK, markersize=5)
    axis.set_yticks(rows.index, [_wrap(title, 36) for title in titles])
    groups = rows["cliques"].str.split()
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
    title = title_of(rows["protocol"].iloc[0])
    axis.set(title=title, xlabel=f"mean rank over {places} places, 1 is best")
    axis.grid(axis="y", visible=False)


def calibration(findings: Findings) -> Figure | None:
    """Draw how often the truth lies in the central interval of a given probability.

    Returns:
        The figure; None when no model gives a standard deviation.
    """
    rows = findings.statistics.pooled
    rows = rows[(rows["region"] == "occluded") & (rows["level"] == ALL)]
    rows = rows[rows["metric"].str.startswith("coverage_")].dropna(subset=["value"])
    if rows.empty:
        return None
    rows = rows.assign(nominal=rows["metric"].str.removeprefix("coverage_").astype(float))
    with plt.rc_context(STYLE):
        figure, axes = _panels(rows["protocol"].unique(), width=3.9, height=3.9)
        for protocol, axis in axes.items():
            inside = rows[rows["protocol"] == protocol]
            axis.plot([0, 100], [0, 100], color=FAINT, linewidth=1)
            for look in looks(findings, inside["model"]):
                mean = inside[inside["model"] == look.model].set_index("nominal")["value"]
                mean = mean.sort_index()
                style = {"color": look.colour, "label": look.label, "ls": "-", "ms": 4}
                axis.plot(mean.index, 100 * mean, look.marker, **style)
            axis.set(xlabel="central interval (%)", xlim=(0, 100), ylim=(0, 100))
        _finish(figure, list(axes.values()), "truth inside (% of hidden values)")
    return figure


def spectra(findings: Findings, pixels: Sequence[Spectra]) -> Figure | None:
    """Draw the spectra of one scene's pixels: truth, cloudy input, and the best models.

    Args:
        findings: names and order of the models.
        pixels: of all scenes; the scene in the middle of the list is drawn.

    Returns:
        The figure; None without pixels.
    """
    if not pixels:
        return None
    scene = pixels[len(pixels) // 2].scene
    chosen = [pixel for pixel in pixels if pixel.scene == scene]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, len(chosen), figsize=(3.6 * len(chosen) + 2.4, 3.6), squeeze=False,
            layout="constrained",
        )  # fmt: skip
        for pixel, axis in zip(chosen, axes[0], strict=True):
            x = [BANDS[band].wavelength_nm for band in pixel.bands]
            for look in looks(findings, set(pixel.values) & set(findings.methods)):
                style = {"color": look.colour, "lw": 1.2 if look.strong else 0.6, "ms": 4}
                y = _with_gaps(pixel.values[look.model])
                axis.plot(x, y, look.marker, ls="-", label=look.label, **style)
            axis.plot(x, _with_gaps(pixel.values[CLOUDY]), color=FAINT, ls="--", label=CLOUDY)
            truth = {"color": INK, "lw": 2, "label": "Truth", "zorder": 5}
            axis.plot(x, _with_gaps(pixel.values[TRUTH]), **truth)
            axis.set(title=f"{pixel.name} pixel", xlabel="wavelength (nm)")
            # The truth sets the scale: a cloud at 0.9 would flatten what matters.
            known = [v for v in pixel.values[TRUTH] if v is not None]
            axis.set_ylim(0, 2 * max(known) if max(known) > 0 else None)
        axes[0][0].set_ylabel("reflectance")
        _finish(figure, list(axes[0]), "reflectance")
    return figure


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]


def place_map(places: Sequence[Place], outline: Sequence[Sequence[Sequence[float]]]) -> Figure:
    """Draw the places on the outline of the land, longitude and latitude as they are.

    Args:
        places: at least one.
        outline: rings of longitude and latitude.
    """
    x, y = (np.array([getattr(p, key) for p in places]) for key in ("longitude", "latitude"))
    (west, east), (south, north) = (
        _span(values, least) for values, least in zip((x, y), LEAST_SPAN, strict=True)
    )
    # A degree of longitude is as wide as it is in the middle of the map.
    aspect = 1 / max(np.cos(np.radians((south + north) / 2)), 0.3)
    height = min(max(9.0 * aspect * (north - south) / (east - west), 2.6), 6.5)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(9.0, height), layout="constrained")
        # As one path, so that inland seas, wound the other way, stay open.
        land = MapPath.make_compound_path(*(MapPath(ring, closed=True) for ring in outline))
        axis.add_patch(PathPatch(land, facecolor=FAINT, alpha=0.22, edgecolor=FAINT, lw=0.6))
        colours = palette([p.id for p in PROTOCOLS.values() if p.truth != "none"])
        for protocol in dict.fromkeys(place.protocols[0] for place in places):
            inside = [place for place in places if place.protocols[0] == protocol]
            axis.scatter(
                [p.longitude for p in inside], [p.latitude for p in inside],
                s=[18 + 10 * min(p.n_scenes, 40) ** 0.5 for p in inside], alpha=0.85,
                color=colours.get(protocol, FAINT), edgecolor="white", linewidth=0.6,
                label=title_of(protocol), zorder=3,
            )  # fmt: skip
        for spot, names in _labels(places, near=0.02 * (east - west)).items():
            text = "\n".join(names[:MOST_LABELS])
            axis.annotate(text, spot, (6, 3), textcoords="offset points", fontsize=7, va="center")
        axis.set(xlim=(west, east), ylim=(south, north), aspect=aspect)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}°"))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}°"))
        axis.legend(loc="lower left", fontsize=8, frameon=True, framealpha=0.8, edgecolor="none")
    return figure


def _labels(places: Sequence[Place], *, near: float) -> dict[tuple[float, float], list[str]]:
    """Return names by the spot they are written at; places nearer than that share one."""
    spots: dict[tuple[float, float], list[str]] = {}
    for place in places:
        here = place.longitude, place.latitude
        spot = next((s for s in spots if math.dist(s, here) < near), here)
        spots.setdefault(spot, []).append(place.id)
    return spots


def _span(values: np.ndarray, least: float) -> tuple[float, float]:
    """Return limits around values in degrees, at least ``least`` apart."""
    low, high = values.min() - MARGIN_DEGREES, values.max() + MARGIN_DEGREES
    missing = max(least - (high - low), 0) / 2
    return low - missing, high + missing


def _ranked(findings: Findings) -> pd.DataFrame:
    """Return the ranking by MAE over all cloud levels."""
    rows = findings.statistics.ranking
    return rows[(rows["metric"] == "MAE") & (rows["level"] == ALL)]


def _frontier(points: pd.DataFrame) -> pd.DataFrame:
    """Return the points that none beats in both time and error, fastest first."""
    ordered = points.sort_values(["seconds", "mean"])
    return ordered[ordered["mean"] < ordered["mean"].cummin().shift(fill_value=np.inf)]


def picture(
    rows: Sequence[Row], columns: Sequence[tuple[str, str]], labels: Mapping[str, str]
) -> Figure | None:
    """Draw the comparison picture: one row per scene, one column per model.

    Args:
        rows: the images; of more than ``MAX_ROWS`` an even spread is drawn.
        columns: ``(key, title)`` in print order; those without any image are left out.
        labels: scene -> text left of its row.

    Returns:
        The figure; None without rows.
    """
    if not rows:
        return None
    spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).round())
    rows = [rows[int(position)] for position in spread]
    drawn = set().union(*(row.images.get(PICTURE_VIEW, {}) for row in rows))
    columns = [column for column in columns if column[0] in drawn] or columns
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
    """Write a figure as PNG on white; where there is none, one that says ``empty``."""
    figure = figure or placeholder(empty)
    with plt.rc_context(STYLE), raster.replacing(path) as temporary:
        # Imagery hardly compresses: more effort costs seconds and saves a twentieth.
        fast = {"compress_level": 1}
        figure.savefig(temporary, dpi=DPI, facecolor="white", pil_kwargs=fast)
    plt.close(figure)


def to_svg(figure: Figure, prefix: str) -> str:
    """Return a figure as a transparent SVG element, and close it.

    Args:
        figure: the figure.
        prefix: put before every id, so that two figures of a page do not share one.
    """
    stream = io.StringIO()
    with plt.rc_context(STYLE | {"svg.hashsalt": prefix}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    return re.sub(r"font: ([^;\"]*?)'[^\";]*", r"font: \g<1>sans-serif", svg)


def on_white(svg: str) -> str:
    """Return an SVG element as a file of its own, on white."""
    head, _, rest = svg.partition(">")
    return f'{head}>\n<rect width="100%" height="100%" fill="white"/>{rest}'


def inline(svg: str) -> str:
    """Return an SVG element for the page: in the page's ink, at its size in pixels."""
    points = re.findall(r'width="([\d.]+)pt"', svg)[0]
    width = float(points) / 72 * PX_PER_INCH
    size = r'<svg ([^>]*?)width="[^"]*"([^>]*?)height="[^"]*"'
    shown = rf'<svg \1\2 style="width:{width:.0f}px" aria-hidden="true"'
    inked = svg.replace(INK, "currentColor").replace(PALE, "var(--pale)")
    return re.sub(size, shown, inked, count=1)


def _mae_rows(findings: Findings) -> pd.DataFrame:
    """Return each scene's occluded MAE of protocols in which more than the baseline has one."""
    scores = findings.scores
    rows = scores[(scores["region"] == "occluded") & (scores["metric"] == "MAE")]
    rows = rows[rows["value"] > 0]  # a logarithmic axis has no zero
    return rows[rows["protocol"].isin(_protocols_with_methods(findings, rows))]


def _protocols_with_methods(findings: Findings, rows: pd.DataFrame) -> np.ndarray:
    methods = [m.id for m in findings.methods.values() if not m.is_baseline]
    return rows.loc[rows["model"].isin(methods), "protocol"].unique()


def chart_colours(findings: Findings) -> dict[str, str]:
    """Return a colour for every model: the figures' own where it has one, else from a wheel."""
    twins = findings.twins
    order = [model for model in best_of_each(findings) if model not in twins]
    wheel = [matplotlib.colors.to_hex(c) for c in sns.husl_palette(max(len(order), 1), l=0.55)]
    colours = dict(zip(order, wheel, strict=False)) | palette(order)
    return {m: colours.get(twins.get(m, m), FAINT) for m in findings.methods}


@dataclass(frozen=True)
class Look:
    """How a model is drawn; the best ones in colour, the others pale behind them."""

    model: str
    colour: str
    marker: str
    label: str
    strong: bool


def looks(findings: Findings, models: Iterable[str]) -> list[Look]:
    """Return how models are drawn, those in colour last, so that they lie on top."""
    twins = findings.twins
    present = set(models) - set(twins)
    order = [model for model in best_of_each(findings) if model not in twins]
    alike = Counter(twins.values())
    colours, markers = palette(order), dict(zip(order, MARKERS, strict=False))
    found = []
    for model in (m for m in findings.methods if m in present):
        title = findings.methods[model].title
        if alike[model]:
            title += f" (and {alike[model]} with the same pixels)"
        if findings.methods[model].is_baseline:
            found.append(Look(model, FAINT, MARKERS[-1], title, True))
        elif model in colours:
            found.append(Look(model, colours[model], markers[model], title, True))
        else:
            found.append(Look(model, PALE, ".", OTHERS, False))
    ranks = {model: position for position, model in enumerate(order)}
    return sorted(found, key=lambda look: (look.strong, -ranks.get(look.model, len(ranks))))


def _panels(protocols: Iterable[str], *, width: float, height: float, rows: int = 1):
    """Return a figure and an axis a protocol, side by side or below each other."""
    names = order_by(protocols, PROTOCOLS)
    columns = math.ceil(len(names) / rows)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(width * columns + 2.2, height * rows),
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    found = dict(zip(names, axes.flat, strict=True))
    for name, axis in found.items():
        axis.set_title(title_of(name))
    return figure, found


def _draw_floor(findings: Findings, protocol: str, axis: plt.Axes) -> None:
    """Draw the floor of real pairs as a line: below it no error of theirs means anything."""
    floor = findings.floors.get(protocol)
    if floor and floor["line"] > 0:
        axis.axhline(floor["line"], label=FLOOR, color=INK, linewidth=1.2, linestyle=(0, (1, 2)))


def _log_axis(axis) -> None:
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, axes: Sequence[plt.Axes], label: str) -> None:
    axes[0].set_ylabel(label)
    entries: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    # Drawn last is best, so it heads the legend; the pale ones close it.
    entries = dict(reversed(entries.items()))
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
