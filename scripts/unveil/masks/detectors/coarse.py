"""Detectors that see pixels larger than the scene's own: to them and back."""

from __future__ import annotations

import numpy as np
from rasterio.crs import CRS

from unveil.bands import UNKNOWN_PROBABILITY
from unveil.raster import Grid

METRES_A_DEGREE = 111_320.0
USUAL_PIXEL_M = 10.0
"""Pixels without a georeference are those of Sentinel-2."""


def pixel_metres(grid: Grid) -> float:
    """Return the edge of a grid's pixels in metres."""
    if not grid.crs:
        return USUAL_PIXEL_M
    crs = CRS.from_user_input(grid.crs)
    metres = METRES_A_DEGREE if crs.is_geographic else crs.linear_units_factor[1]
    return abs(grid.transform[0]) * metres


def coarse_step(grid: Grid, metres: float) -> int:
    """Return how many pixels of a grid along an edge make one of about so many metres."""
    return max(1, round(metres / pixel_metres(grid)))


def block_means(image: np.ndarray, step: int) -> np.ndarray:
    """Return the means of squares of ``step`` pixels, ``(B, h, w)``; NaN pixels do not count.

    Squares at the right and lower edge may be smaller.
    """
    if step == 1:
        return image
    valid = np.isfinite(image)
    total = _add_up(np.where(valid, image, 0), step)
    count = _add_up(valid.astype(np.float32), step)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _add_up(values: np.ndarray, step: int) -> np.ndarray:
    """Return the sums of squares: six times as fast as ``np.add.reduceat``, in its order."""
    for axis in (1, 2):
        moved = np.moveaxis(values, axis, -1)
        first = moved[..., ::step]
        rest = np.zeros_like(first)
        for place in range(1, min(step, moved.shape[-1])):
            part = moved[..., place::step]
            rest[..., : part.shape[-1]] += part
        values = np.moveaxis(first + rest, -1, axis)
    return np.ascontiguousarray(values)


def enlarge(image: np.ndarray, step: int, shape: tuple[int, int]) -> np.ndarray:
    """Return each pixel ``(h, w)`` as a square of ``step`` pixels, cut to ``shape``."""
    if step == 1:
        return image
    return image.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]


def to_percent(probability: np.ndarray) -> np.ndarray:
    """Return uint8 percent of a probability 0...1, 255 where it is NaN."""
    known = np.isfinite(probability)
    percent = np.rint(np.where(known, probability, 0) * 100)
    return np.where(known, percent, UNKNOWN_PROBABILITY).astype(np.uint8)
