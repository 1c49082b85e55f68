"""A series of real dates of one place, in memory and as one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from unveil import raster
from unveil.bands import REFLECTANCE_SCALE
from unveil.guarded import read_npz, reading_input
from unveil.scene import is_occluded

NO_RADAR = np.empty((0, 2, 0, 0), np.float32)
NO_MASKS = np.empty((0, 0, 0), bool)


@dataclass(frozen=True)
class Series:
    """Dates of one place on one grid.

    Attributes:
        id: its key in the config.
        bands: ESA names, B of them.
        reflectance: ``(T, B, H, W)`` float32, NaN where nodata.
        classes: ``(T, H, W)`` uint8 classes of :mod:`unveil.bands`.
        days: ``(T,)`` int, proleptic ordinals.
        bbox: west, south, east, north in degrees.
        weight: how often it is drawn.
        level: of the optical dates, ``L1C`` or ``L2A``.
        radar: ``(R, 2, H, W)`` float32 dB, VV then VH, NaN where missing; R is 0 without radar.
        radar_days: ``(R,)`` int, proleptic ordinals.
        masks: ``(M, H, W)`` bool, clouds of further dates, whose images are not here.
    """

    id: str
    bands: tuple[str, ...]
    reflectance: np.ndarray
    classes: np.ndarray
    days: np.ndarray
    bbox: tuple[float, float, float, float]
    weight: float = 1.0
    level: str = "L2A"
    radar: np.ndarray = field(default_factory=lambda: NO_RADAR)
    radar_days: np.ndarray = field(default_factory=lambda: np.empty(0, int))
    masks: np.ndarray = field(default_factory=lambda: NO_MASKS)

    @cached_property
    def cloud_shapes(self) -> list[np.ndarray]:
        """``(H, W)`` bool masks of real clouds that hide a part of the place."""
        known = [*is_occluded(self.classes), *self.masks]
        return [mask for mask in known if 0.05 < mask.mean() < 0.98]


def save_series(series: Series, output: Path) -> None:
    """Write a series as one ``.npz``.

    Args:
        series: the series.
        output: the file: ``reflectance`` uint16 x 10000 with 0 for nodata, ``classes``, ``days``,
            ``bands``, ``bbox``, ``level``, ``radar`` with ``radar_days``, and ``masks``.
    """
    values = np.nan_to_num(series.reflectance * REFLECTANCE_SCALE, nan=0.0).round()
    with raster.replacing(output) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(
            stream,
            reflectance=np.clip(values, 0, 65535).astype(np.uint16),
            classes=series.classes,
            days=series.days,
            bands=np.array(series.bands),
            bbox=np.array(series.bbox),
            level=np.array(series.level),
            radar=series.radar,
            radar_days=series.radar_days,
            masks=series.masks,
        )


def load_series(path: Path, *, name: str, weight: float = 1.0) -> Series:
    """Read a series written by :func:`save_series`.

    Raises:
        InputError: if the file is missing or an array of it is.
    """
    remedy = "give an .npz with reflectance, classes, days, bands and bbox"
    stored = read_npz(path, kind="a series", remedy=remedy)
    with reading_input(path, "a series", remedy=remedy):
        arrays = {key: stored[key] for key in ("reflectance", "classes", "days")}
        bands = tuple(map(str, stored["bands"]))
        west, south, east, north = map(float, stored["bbox"])
        optional = {k: stored[k] for k in ("radar", "radar_days", "masks") if k in stored}
        level = str(stored["level"]) if "level" in stored else "L2A"
        arrays["reflectance"] = raster.to_reflectance(arrays["reflectance"])
    return Series(
        name,
        bands,
        bbox=(west, south, east, north),
        weight=weight,
        level=level,
        **arrays,
        **optional,
    )
