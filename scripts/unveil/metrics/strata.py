"""Where and when: the regions of a scene, and the facts that results are sorted by.

==============  ====================================================================
region          pixels, among those whose truth is known
==============  ====================================================================
all             every one
occluded        under cloud or shadow in the target (by construction, or by its mask)
shadow          of these, under cloud shadow only
never_seen      occluded, and no context frame shows the surface there
clear           not occluded; compared with the truth
clear_kept      not occluded; compared with the target itself: did the model keep them?
==============  ====================================================================

Without any context frame every occluded pixel was never seen.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
from rasterio.windows import Window

from unveil.bands import NODATA, SHADOW
from unveil.scene import Scene, is_clear, is_occluded, read_mask

TRUTH_REGIONS = ("all", "occluded", "clear", "shadow", "never_seen")
KEPT_REGIONS = ("clear_kept",)
REGIONS = (*TRUTH_REGIONS, *KEPT_REGIONS)


def region_masks(occlusion: np.ndarray, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Return a ``(H, W)`` bool mask for each of :data:`REGIONS`.

    Args:
        occlusion: ``(H, W)`` uint8 classes of the target; 255 belongs to no region.
        seen: ``(H, W)`` bool, a context frame shows the surface (:func:`nearest_look`).
    """
    occluded, clear = is_occluded(occlusion), is_clear(occlusion)
    return {
        "all": occlusion != NODATA,
        "occluded": occluded,
        "clear": clear,
        "shadow": occlusion == SHADOW,
        "never_seen": occluded & ~seen,
        "clear_kept": clear,
    }


def nearest_look(scene: Scene, window: Window | None = None) -> np.ndarray:
    """Days from the target to the nearest context frame with a clear look at each pixel.

    A frame without a mask counts as clear throughout, as it does for the models.

    Returns:
        ``(H, W)`` float32, infinite where no frame shows the surface.
    """
    size = (int(window.height), int(window.width)) if window else scene.grid.shape
    days = np.full(size, np.inf, np.float32)
    for frame in scene.context:
        look = is_clear(read_mask(frame, size, window)[0])
        gap = abs((frame.day - scene.target.day).days)
        days[look] = np.minimum(days[look], gap)
    return days


def season(day: dt.date, latitude: float) -> str:
    """Return the meteorological season: winter, spring, summer or autumn, by hemisphere."""
    names = ("winter", "spring", "summer", "autumn")
    quarter = day.month % 12 // 3
    return names[quarter if latitude >= 0 else (quarter + 2) % 4]
