"""The floor of a real pair: what its two dates differ by where both are certainly clear.

The truth of a real pair is another day. What the ground, the sun and the air changed between the
days counts as error of every model alike, and no model is expected to come below it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unveil import raster
from unveil.classes import RIM_PX, near
from unveil.raster import Grid
from unveil.scene import Frame, is_clear, read_reflectance

LEAST_PX = 100
"""Fewest pixels that a floor is read from."""


def measure_floor(target: Frame, truth: Frame, scored: Frame, grid: Grid) -> dict[str, float | int]:
    """Return the mean absolute difference of two dates, reflectance, mean over bands.

    It is taken at pixels clear in both dates and more than :data:`unveil.classes.RIM_PX` from
    anything hidden in the target or unknown in the truth.

    Args:
        target: the cloudy image.
        truth: the clear one, with the same bands.
        scored: the scored set of both.
        grid: of all three.

    Returns:
        ``floor`` (as the dates are), ``floor_after_line`` (once each band of the target is led to
        the truth by its line of least squares) and ``floor_pixels``; the last alone where these
        are fewer than :data:`LEAST_PX`.
    """
    sums, count = np.zeros((6, len(target.bands))), 0
    for x, y in _far_pixels(target, truth, scored, grid):
        sums += [v.sum(axis=1) for v in (x, y, x * x, x * y, y * y, np.abs(x - y))]
        count += x.shape[1]
    if count < LEAST_PX:
        return {"floor_pixels": count}
    mean_x, mean_y, xx, xy, _, apart = sums / count
    spread = xx - mean_x**2
    flat = spread <= 1e-12
    slope = np.where(flat, 0.0, (xy - mean_x * mean_y) / np.where(flat, 1.0, spread))
    left = np.zeros(len(target.bands))
    for x, y in _far_pixels(target, truth, scored, grid):
        line = mean_y[:, None] + slope[:, None] * (x - mean_x[:, None])
        left += np.abs(y - line).sum(axis=1)
    return {
        "floor": round(float(apart.mean()), 5),
        "floor_after_line": round(float((left / count).mean()), 5),
        "floor_pixels": count,
    }


def _far_pixels(
    target: Frame, truth: Frame, scored: Frame, grid: Grid
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(B, N)`` float64 reflectance of both dates at their certainly clear pixels."""
    for window in grid.windows():
        outer = grid.with_halo(window, RIM_PX)
        clear = is_clear(raster.read(scored.path, window=outer)[0])
        far = ~near(~clear, RIM_PX)[raster.within(window, outer)]
        if far.any():
            images = (read_reflectance(f, target.bands, window) for f in (target, truth))
            x, y = (image[:, far].astype(np.float64) for image in images)
            yield x, y
