"""Words and numbers as the report prints them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rasterio.crs import CRS

from unveil.metrics.registry import METRICS, print_value
from unveil.raster import Grid
from unveil.scene import Scene

REGION_TEXT = {
    "occluded": "pixels hidden by cloud or shadow in the input: what was reconstructed",
    "all": "every pixel where the truth is known",
    "clear": "pixels that were visible in the input, against the truth",
    "clear_kept": "visible pixels, against the cloudy input: how much was altered needlessly",
    "rim": "pixels called clear, within 20 pixels of hidden ones: haze and missed cloud lie there",
    "far": "pixels called clear, farther from hidden ones",
    "never_seen": "pixels without a clear look in any frame",
    "shadow": "pixels under cloud shadow",
    "haze": "pixels under thin cloud that lets the ground through, whatever the mask calls them",
}

REGION_NAMES = {"occluded": "hidden", "clear_kept": "clear, against the input"}
"""Printed names of regions that are jargon in the tables."""


def region_name(region: str) -> str:
    """Return the printed name of a region."""
    return REGION_NAMES.get(region, region.replace("_", " "))


def percent(fraction: float) -> str:
    """Return a fraction as printed percent; "unknown" for NaN."""
    return "unknown" if math.isnan(fraction) else f"{100 * fraction:.0f} %"


def probability(p: float) -> str:
    """Return a probability as printed; a dash for NaN."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def figure_value(value: float, metric: str) -> str:
    """Return a number as a paper prints it; a dash where it prints none."""
    as_printed = METRICS[metric].unit in ("dB", "degree")
    return f"{value:g}" if as_printed else print_value(value, metric)


def plural(number: int, noun: str) -> str:
    """Return "1 scene" or "2 scenes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}".replace(",", " ")


def scene_title(scene: Scene) -> str:
    """Return the printed name of a scene: the title that its source gave, or its id."""
    return str(scene.facts.get("title") or scene.id)


def pixel_size(grid: Grid) -> str:
    """Return the printed width of a pixel, in metres or degrees of the grid's CRS."""
    unit = "" if not grid.crs else " m" if CRS.from_user_input(grid.crs).is_projected else "°"
    return f"{abs(grid.transform[0]):g}{unit}"


def shorten(text: str, length: int = 30) -> str:
    """Return a text of at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def pretty(value: Any) -> str:
    """Return a recorded fact as words: lists joined, mappings as "key value" pairs."""
    if isinstance(value, Mapping):
        pairs = ((key.replace("_", " "), pretty(item)) for key, item in value.items())
        return "; ".join(f"{key} {text}" for key, text in pairs if text)
    if isinstance(value, list | tuple):
        return ", ".join(pretty(item) for item in value)
    return "" if value is None else str(value)


def rounded(value: float) -> float | None:
    """Return a number with four digits for the data of charts; None where it is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
