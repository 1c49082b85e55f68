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
from unveil.sources.base import SourceRaster, SourceSeries
from unveil.sources.selection import Acquisition, Look

LOG = logging.getLogger(__name__)

Detect = Callable[[np.ndarray, Sequence[str]], np.ndarray]
"""Gives ``(H, W)`` classes for ``(B, H, W)`` L1C reflectance and its band names."""

JUDGED_PX = 512
"""Most rows or columns of a frame that its cover is measured on; others are skipped."""


def measure_looks(series: SourceSeries, *, detect: Detect) -> list[Look]:
    """Return one look per date with its cover over the place, sorted by date.

    Frames larger than :data:`JUDGED_PX` are judged on every n-th pixel. A frame without
    a mask or s2cloudless's bands has an unknown cover, and is neither target nor truth.
    """
    looks = []
    for number, (date, frame) in enumerate(sorted(series.optical.items()), 1):
        mask = series.masks.get(date)
        data = _thinned(frame, series.grid)
        time = selection.parse_time(date)
        look = Look((Acquisition(date, time),))
        if mask:
            classes = classmap.from_delivered(_thinned(mask, series.grid)[0], mask.bands[0])
        elif set(S2CLOUDLESS10) <= set(frame.bands):
            classes = detect(raster.to_reflectance(data), frame.bands)
        else:
            looks.append(replace(look, valid=float((data != 0).all(axis=0).mean())))
            continue
        empty = (data == 0).any(axis=0)
        clear = float((is_clear(classes) & ~empty).mean())
        classes = classmap.dilate(classes, HIDDEN_GROWTH_PX // _step(series.grid))
        classes[empty] = NODATA
        blue = data[frame.bands.index("B02")] if "B02" in frame.bands else None
        looks.append(selection.measured(look, classes, blue, clear=clear))
        LOG.info(
            "%s: %.0f %% occluded, %d of %d",
            date,
            100 * cloud_cover(classes),
            number,
            len(series.optical),
        )
    return looks


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
