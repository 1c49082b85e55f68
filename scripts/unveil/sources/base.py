"""What a source delivers: rasters on one grid, read window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rasterio.windows import Window

from unveil.bands import REFLECTANCE_SCALE
from unveil.errors import InputError
from unveil.raster import Grid

ReadWindow = Callable[[Window], np.ndarray]


@dataclass(frozen=True)
class SourceRaster:
    """One raster of a source.

    Attributes:
        bands: names of its bands.
        read: reads a window, ``(B, H, W)``; optical uint16 DN x 10000 with the offset
            applied and 0 for nodata, radar float32 dB with NaN, masks uint8.
        facts: what is recorded with the frame (source href, offset, level ...).
    """

    bands: tuple[str, ...]
    read: ReadWindow
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceSeries:
    """All rasters of one place, by date.

    Attributes:
        grid: the one grid they lie on.
        place: place id.
        optical: Sentinel-2 frames.
        masks: delivered masks, band ``SCL`` or ``CLASS``.
        radar: Sentinel-1 frames.
        reference: a clear image delivered apart from the series, or None.
        facts: level, licence, attribution ...
        target_date: date of the target where the source itself names it; else empty.
        reference_date: date of ``reference``, or of the frame that the source names as truth;
            else empty.
        cloud_date: date that lends its clouds, where the source names it; else empty.
    """

    grid: Grid
    place: str
    optical: dict[str, SourceRaster]
    masks: dict[str, SourceRaster] = field(default_factory=dict)
    radar: dict[str, SourceRaster] = field(default_factory=dict)
    reference: SourceRaster | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    target_date: str = ""
    reference_date: str = ""
    cloud_date: str = ""


def from_array(data: np.ndarray, bands: tuple[str, ...], **facts: Any) -> SourceRaster:
    """Wrap an array ``(B, H, W)`` that is already in memory."""

    def read(window: Window) -> np.ndarray:
        rows, cols = window.toslices()
        return data[:, rows, cols]

    return SourceRaster(bands, read, facts)


def dn_from_reflectance(values: np.ndarray, scale: float, *, file: str, offset: int = 0):
    """Return uint16 DN x 10000 from what a file holds; nodata (0, NaN, negative fill) is 0.

    Args:
        values: array as read.
        scale: what the values are divided by to give reflectance.
        file: named in errors.
        offset: added to integer DN before scaling (baseline offset, e.g. -1000).

    Raises:
        InputError: if the values cannot be reflectance at that scale.
    """
    numbers = np.asarray(values, np.float64)
    valid = np.isfinite(numbers) & (numbers != 0)
    reflectance = np.where(valid, (numbers + offset) / scale, 0)
    sample = reflectance[valid]
    if sample.size and float(np.median(sample)) > 2.0:
        raise InputError(
            f"median reflectance would be {np.median(sample):.3g}",
            file=file,
            field="unit",
            remedy="float frames hold reflectance 0...1, integer frames reflectance x 10000; "
            "convert the file, or correct the scale",
        )
    scaled = np.clip(np.rint(reflectance * REFLECTANCE_SCALE), 1, 65_535)
    return np.where(valid, scaled, 0).astype(np.uint16)
