"""Measuring the dates of an opened source: cloud over the place, data, and haze."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.bands import NODATA, S2CLOUDLESS10
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.raster import BLOCK, Grid
from unveil.scene import cloud_cover, is_clear
from unveil.sources import selection
from unveil.sources.base import SourceRaster, SourceSeries, open_dates
from unveil.sources.selection import Acquisition, Look

LOG = logging.getLogger(__name__)

Detect = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Gives ``(H, W)`` classes for ``(B, H, W)`` L1C reflectance and its band names."""

JUDGED_PX = 512
"""Most rows or columns of a frame that its cover is measured on; others are skipped."""


def measure_looks(series: SourceSeries, *, detect: Detect) -> tuple[SourceSeries, list[Look]]:
    """Return the dates of a series that can be read, and one look each, sorted by date.

    A look knows its cover over the place. Frames larger than :data:`JUDGED_PX` are judged on
    every n-th pixel. A frame without a mask or s2cloudless's bands has an unknown cover, and is
    neither target nor truth. A date that cannot be read is left out of the series.

    Raises:
        InputError: if no date can be read.
    """
    dates = {date: date for date in sorted(series.optical)}
    looks, bad = open_dates(dates, lambda _, date: _measure(series, date, detect=detect))
    return series.without(bad), list(looks.values())


def _measure(series: SourceSeries, date: str, *, detect: Detect) -> Look:
    frame, mask = series.optical[date], series.masks.get(date)
    data = _thinned(frame, series.grid)
    look = Look((Acquisition(date, selection.parse_time(date)),))
    if mask:
        classes = classmap.from_delivered(_thinned(mask, series.grid)[0], mask.bands[0])
    elif set(S2CLOUDLESS10) <= set(frame.bands):
        classes = detect(raster.to_reflectance(data), frame.bands)
    else:
        return replace(look, valid=float((data != 0).all(axis=0).mean()))
    empty = (data == 0).any(axis=0)
    clear = float((is_clear(classes) & ~empty).mean())
    classes = classmap.dilate(classes, HIDDEN_GROWTH_PX // _step(series.grid))
    classes[empty] = NODATA
    blue = data[frame.bands.index("B02")] if "B02" in frame.bands else None
    LOG.info("%s: %.0f %% occluded", date, 100 * cloud_cover(classes))
    return selection.measured(look, classes, blue, clear=clear)


def _step(grid: Grid) -> int:
    return max(1, -(-max(grid.shape) // JUDGED_PX))


def _thinned(source: SourceRaster, grid: Grid) -> np.ndarray:
    """Read every n-th pixel of a raster, ``(B, h, w)``, block by block."""
    step = _step(grid)
    rows = []
    for top in range(0, grid.height, BLOCK):
        row = []
        for left in range(0, grid.width, BLOCK):
            window = Window(left, top, min(BLOCK, grid.width - left), min(BLOCK, grid.height - top))
            row.append(source.read(window)[:, -top % step :: step, -left % step :: step])
        rows.append(np.concatenate(row, axis=2))
    return np.concatenate(rows, axis=1)
