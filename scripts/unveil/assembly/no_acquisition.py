"""Targets of products: days without an acquisition, gaps, and what lies next to cloud.

What such a target does not show is hidden, as under cloud, so that models fill it from other looks:
its number is the floor of what is data, and its mask calls it cloud. Next to cloud, haze and rims
that masks call clear would stay in the image.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil.bands import CLOUD, NODATA, sort_bands
from unveil.config import SceneRow
from unveil.scene import HIDDEN_AROUND, NO_ACQUISITION
from unveil.sources.base import SourceRaster, SourceSeries
from unveil.sources.selection import usual_bands

FLOOR_DN = 1
HAZE_PX = 10
"""Pixels next to cloud that products fill: real dates are .02 to .13 brighter there in the blue
than a clear date within five days (docs/protocols.md)."""


def with_target(row: SceneRow, series: SourceSeries) -> SourceSeries:
    """Return a series that has a target of the row's date, if it asks for no truth.

    A date that is there and cannot be used is one without an acquisition for products alone: who
    names one date is told what is wrong with it.
    """
    date = row.target_date
    wanted = row.protocol == "none" and date != "auto" and series.optical
    if not wanted or series.target_date not in ("", date):
        return series
    if date in series.optical:
        return _with_doubts_hidden(series, date) if row.product else series
    gone = series.left_out.get(date)
    if gone and not row.product:
        return series
    bands = sort_bands(usual_bands([frame.bands for frame in series.optical.values()]))
    facts = {NO_ACQUISITION: gone.reason if gone else "no acquisition of this date"}
    blank = SourceRaster(bands, lambda window: _constant(FLOOR_DN, len(bands), window), facts)
    hidden = SourceRaster(("CLASS",), lambda window: _constant(CLOUD, 1, window, np.uint8))
    return replace(
        series,
        optical=dict(sorted({**series.optical, date: blank}.items())),
        masks={**series.masks, date: hidden},
    )


def _constant(value: int, bands: int, window: Window, dtype: type = np.uint16) -> np.ndarray:
    return np.full((bands, int(window.height), int(window.width)), value, dtype)


def _with_doubts_hidden(series: SourceSeries, date: str) -> SourceSeries:
    """Hide the target's pixels without data, and those next to cloud.

    Without a delivered mask, pixels without data stay so.
    """
    frame, mask = series.optical[date], series.masks.get(date)
    frame = replace(frame, facts={**frame.facts, HIDDEN_AROUND: HAZE_PX})
    if mask is None:
        return replace(series, optical={**series.optical, date: frame})

    def read(window: Window) -> np.ndarray:
        data = frame.read(window)
        return np.where((data == 0).any(axis=0), FLOOR_DN, data).astype(data.dtype)

    def read_classes(window: Window) -> np.ndarray:
        gap = (frame.read(window) == 0).any(axis=0)
        classes = classmap.from_delivered(mask.read(window)[0], mask.bands[0])
        return np.where(gap | (classes == NODATA), CLOUD, classes)[None].astype(np.uint8)

    return replace(
        series,
        optical={**series.optical, date: replace(frame, read=read)},
        masks={**series.masks, date: SourceRaster(("CLASS",), read_classes, mask.facts)},
    )
