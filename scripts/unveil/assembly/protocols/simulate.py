"""Protocol ``simulate``: generated clouds on a clear image, where there is no cloudy date.

The withheld image is the exact truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.assembly.protocols.base import (
    BadCell,
    MadeTarget,
    Maker,
    ProtocolSettings,
    classes_of,
    cover_of,
    mask_of,
    scene_seed,
)
from unveil.assembly.simulated_clouds import (
    CloudVeil,
    SimulatedClouds,
    simulate_clouds,
    visible_bands,
    with_haze,
)
from unveil.assembly.veil import GENERATED, OFF
from unveil.bands import REFLECTANCE_SCALE, S2CLOUDLESS10
from unveil.config import SceneRow
from unveil.protocols import PROTOCOLS
from unveil.raster import Grid
from unveil.scene import is_occluded
from unveil.sources.base import SourceRaster, SourceSeries


class Simulate(Maker):
    """A clear date with generated clouds."""

    protocol = PROTOCOLS["simulate"]

    def complaint(self, row: SceneRow) -> BadCell | None:
        """Ask for a cloud level."""
        if row.cloud_level is not None:
            return None
        return BadCell(
            "cloud_level",
            "protocol simulate without a cloud level",
            "give the fraction of pixels to hide, e.g. 0.5",
        )

    def make(self, row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> MadeTarget:
        """Put clouds and their haze on the image that the source delivers apart, or the date's."""
        date = row.target_date
        truth = series.reference or series.optical[date]
        rng = scene_seed(settings.seed, row.scene)
        clouds = simulate_clouds(series.grid.shape, cover=cover_of(row), rng=rng)
        ambient = _brightness(truth, series.grid)
        if row.veil:
            clouds = with_haze(clouds, rng=scene_seed(settings.seed, f"{row.scene} haze"))
        veil = CloudVeil(clouds, bands=truth.bands, ambient=ambient, rng=rng)
        own = classes_of(series.masks[date], series.grid) if date in series.masks else None

        def read(window: Window) -> np.ndarray:
            clear = raster.to_reflectance(truth.read(window))
            return raster.to_dn(veil.over(clear, window.toslices()))

        return MadeTarget(
            raster=SourceRaster(truth.bands, read, truth.facts),
            mask=_mask(truth.bands, clouds, own),
            reference=truth,
            reference_date=date,
            reference_mask=series.reference_mask if series.reference else series.masks.get(date),
            occlusion=mask_of(clouds.classes),
            facts={"veil": GENERATED if row.veil else OFF},
        )


def _mask(
    bands: Sequence[str], clouds: SimulatedClouds, own: np.ndarray | None
) -> SourceRaster | None:
    """Deliver the generator's classes where no detector could find the clouds."""
    if own is None and set(S2CLOUDLESS10) <= set(bands):
        return None  # the masks stage detects them, as it would real ones
    base = np.zeros_like(clouds.classes) if own is None else own
    mask = np.where(is_occluded(clouds.classes), clouds.classes, base).astype(np.uint8)
    return mask_of(mask, **{"unveil:mask_from": "cloud generator"})


def _brightness(source: SourceRaster, grid: Grid) -> float:
    """Return the 90th percentile of the visible bands, reflectance; 0 without data."""
    counts = np.zeros(2**16, np.int64)
    visible = visible_bands(source.bands)
    for window in grid.windows():
        data = source.read(window)
        counts += np.bincount(data[visible].ravel(), minlength=2**16)
    ranks = np.cumsum(counts[1:])  # DN 0 has no data
    if not ranks[-1]:
        return 0.0
    position = 0.9 * (ranks[-1] - 1)
    low, high = np.searchsorted(ranks, [np.floor(position), np.ceil(position)], side="right") + 1
    between = low + (high - low) * (position % 1)
    return float(between / REFLECTANCE_SCALE)
