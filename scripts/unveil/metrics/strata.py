"""Where and when: the regions of a scene, and the facts that results are sorted by.

==============  ====================================================================
region          pixels, among those whose truth is known
==============  ====================================================================
all             every one
occluded        under cloud or shadow in the target (by construction, or by its mask)
shadow          of these, under cloud shadow only
haze            thin cloud, whatever the mask calls it: the target's blue (B02) exceeds the
                truth by 0.01 to 0.10 reflectance, and it is no shadow. Only where the truth
                is of the target's own date, else a change of the land would count
never_seen      occluded, and no context frame shows the surface there
rim             clear, at most 20 pixels from the nearest occluded one: where haze and the cloud
                that masks miss are
far             clear, farther than that
clear           not occluded; compared with the truth
clear_kept      not occluded; compared with the target itself: did the model keep them?
look_0_5d       occluded, nearest clear look at most 5 days away
look_6_15d      occluded, 6 to 15 days
look_16_30d     occluded, 16 to 30 days
look_31d        occluded, 31 days or more
water           occluded, NDWI of the truth above 0
vegetation      occluded, not water, NDVI of the truth at least 0.4
bare            occluded, neither
==============  ====================================================================

Without any context frame every occluded pixel was never seen. Land cover is spectral, from
the truth, and needs B03, B04 and B08 (or B8A) in it; a class raster (:class:`LandCover`)
puts its own classes in the place of the last three. Regions from ``look_0_5d`` on are scored
over bands only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from unveil import raster
from unveil.bands import NODATA, SHADOW
from unveil.metrics import definitions
from unveil.raster import Grid
from unveil.scene import Scene, is_clear, is_occluded, read_mask

TRUTH_REGIONS = ("all", "occluded", "clear", "shadow", "haze", "never_seen", "rim", "far")
KEPT_REGIONS = ("clear_kept",)
REGIONS = (*TRUTH_REGIONS, *KEPT_REGIONS)
LOOKS = {"look_0_5d": 5, "look_6_15d": 15, "look_16_30d": 30, "look_31d": np.inf}
"""Regions by days to the nearest clear look, with the last day of each."""
LAND_COVER = ("water", "vegetation", "bare")
VEGETATION_NDVI, WATER_NDWI = 0.4, 0.0
SEASONS = ("winter", "spring", "summer", "autumn")
HAZE_BAND, HAZE = "B02", (0.01, 0.10)


@dataclass(frozen=True)
class LandCover:
    """A raster of land cover classes, in any projection; scenes read it at their pixels.

    Attributes:
        path: one band of integer codes (GeoTIFF).
        classes: name of a region -> its code.
    """

    path: Path
    classes: Mapping[str, int] = field(default_factory=dict)

    def read(self, grid: Grid, window: Window) -> np.ndarray:
        """Read the codes at the pixels of a grid, nearest neighbour, 0 outside, ``(H, W)``.

        Without a georeference there is no telling where the scene lies: all 0.

        Raises:
            InputError: if the raster is missing or damaged.
        """
        if not grid.crs:
            return np.zeros((int(window.height), int(window.width)), np.uint8)
        where = {"transform": grid.affine, "height": grid.height, "width": grid.width}
        with raster.open_raster(self.path) as dataset:
            options = {"crs": grid.crs, "resampling": Resampling.nearest, "nodata": 0}
            with WarpedVRT(dataset, **options, **where) as warped:
                return warped.read(1, window=window)

    def masks(self, occluded: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Return a ``(H, W)`` bool mask for each class, of the occluded pixels."""
        return {name: occluded & (codes == code) for name, code in self.classes.items()}


def region_masks(
    occlusion: np.ndarray,
    seen: np.ndarray,
    *,
    close: np.ndarray,
    haze: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return a ``(H, W)`` bool mask for each of :data:`REGIONS`.

    Args:
        occlusion: ``(H, W)`` uint8 classes of the target; 255 belongs to no region.
        seen: ``(H, W)`` bool, a context frame shows the surface (:func:`nearest_look`).
        close: ``(H, W)`` bool, at most :data:`unveil.classes.RIM_PX` from an occluded pixel.
        haze: ``(H, W)`` bool (:func:`haze_mask`); None where haze cannot be told.
    """
    occluded, clear = is_occluded(occlusion), is_clear(occlusion)
    return {
        "all": occlusion != NODATA,
        "occluded": occluded,
        "clear": clear,
        "shadow": occlusion == SHADOW,
        "haze": np.zeros_like(occluded) if haze is None else haze & (occlusion != NODATA),
        "never_seen": occluded & ~seen,
        "rim": clear & close,
        "far": clear & ~close,
        "clear_kept": clear,
    }


def haze_mask(
    target: np.ndarray, truth: np.ndarray, occlusion: np.ndarray, bands: Sequence[str]
) -> np.ndarray | None:
    """Return where thin cloud lets the ground through, ``(H, W)`` bool; None without B02.

    Args:
        target: ``(B, H, W)`` reflectance of the cloudy frame, NaN where nodata.
        truth: ``(B, H, W)`` reflectance of the same date without clouds, likewise.
        occlusion: ``(H, W)`` uint8 classes of the target.
        bands: names of the B bands.
    """
    if HAZE_BAND not in bands:
        return None
    band = list(bands).index(HAZE_BAND)
    brighter = target[band] - truth[band]  # NaN is in no range
    return (brighter >= HAZE[0]) & (brighter <= HAZE[1]) & (occlusion != SHADOW)


def look_masks(occluded: np.ndarray, look: np.ndarray) -> dict[str, np.ndarray]:
    """Return a ``(H, W)`` bool mask for each of :data:`LOOKS`.

    Args:
        occluded: ``(H, W)`` bool.
        look: ``(H, W)`` days to the nearest clear look (:func:`nearest_look`).
    """
    masks, after = {}, -1.0
    for name, last in LOOKS.items():
        masks[name] = occluded & (look > after) & (look <= last) & np.isfinite(look)
        after = last
    return masks


def land_cover_bands(bands: Sequence[str]) -> tuple[str, str, str] | None:
    """Return the green, red and near-infrared band to tell land cover by; None without."""
    near = next((name for name in ("B08", "B8A") if name in bands), None)
    return ("B03", "B04", near) if near and {"B03", "B04"} <= set(bands) else None


def land_cover_masks(
    occluded: np.ndarray, truth: np.ndarray, bands: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return a ``(H, W)`` bool mask for each of :data:`LAND_COVER`; empty without the bands.

    Args:
        occluded: ``(H, W)`` bool.
        truth: ``(B, H, W)`` reflectance; NaN is in no class.
        bands: names of the B bands.
    """
    wanted = land_cover_bands(bands)
    if wanted is None:
        return {name: np.zeros_like(occluded) for name in LAND_COVER}
    green, red, near = (truth[list(bands).index(name)] for name in wanted)
    known = occluded & np.isfinite(green + red + near)
    green, red, near = (np.where(known, x, 0) for x in (green, red, near))
    water = known & (definitions.ndwi(green, near) > WATER_NDWI)
    vegetation = known & ~water & (definitions.ndvi(red, near) >= VEGETATION_NDVI)
    return {"water": water, "vegetation": vegetation, "bare": known & ~water & ~vegetation}


def nearest_look(scene: Scene, window: Window | None = None) -> np.ndarray:
    """Days from the target to the nearest context frame with a clear look at each pixel.

    Returns:
        ``(H, W)`` float32, infinite where no frame shows the surface.
    """
    size = (int(window.height), int(window.width)) if window else scene.grid.shape
    days = np.full(size, np.inf, np.float32)
    for frame in scene.context:
        look = is_clear(read_mask(frame, window)[0])
        gap = abs((frame.day - scene.target.day).days)
        days[look] = np.minimum(days[look], gap)
    return days


def season(day: dt.date, latitude: float) -> str:
    """Return the meteorological season of a day, one of :data:`SEASONS`, by hemisphere."""
    quarter = day.month % 12 // 3
    return SEASONS[quarter if latitude >= 0 else (quarter + 2) % 4]
