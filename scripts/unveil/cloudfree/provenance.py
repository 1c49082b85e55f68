"""Where each pixel of a cloud-free image comes from: seen that day, or filled from other looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.classes import near
from unveil.scene import NO_ACQUISITION, Frame, Scene, is_clear, is_occluded, read_mask

OBSERVED, VEILED, FILLED, NEVER_SEEN = 1, 2, 3, 4
CLASSES = {
    OBSERVED: ("observed", "clear on this date, far from cloud"),
    VEILED: ("veiled", "clear on this date, but so near to what is hidden that haze may lie on it"),
    FILLED: (
        "filled",
        "hidden on this date, or next to cloud: estimated from clear looks of other dates",
    ),
    NEVER_SEEN: ("never_seen", "clear on no date that was used: the value, if any, is a guess"),
}
"""Number in the file -> name and meaning."""
BANDS = ("CLASS", "DAYS", "LOOKS")
NODATA = -1
"""Of all three bands: no value in the image, days without any clear look."""
VEIL_PX = 10
"""Pixels from what is hidden within which clear pixels count as veiled: real dates are brighter
there than clear ones (docs/protocols.md)."""


@dataclass(frozen=True)
class Provenance:
    """Where the pixels of one window come from.

    Attributes:
        classes: ``(H, W)`` int16, a key of :data:`CLASSES`; -1 without a value in the image.
        days: ``(H, W)`` int16, days to the nearest clear look, 0 on the date itself; -1 without.
        looks: ``(H, W)`` int16, number of clear looks.
    """

    classes: np.ndarray
    days: np.ndarray
    looks: np.ndarray

    @property
    def bands(self) -> np.ndarray:
        """The three as ``(3, H, W)`` int16, in the order of :data:`BANDS`."""
        return np.stack([self.classes, self.days, self.looks])


def trace(scene: Scene, window: Window, answered: np.ndarray) -> Provenance:
    """Return where the pixels of a window come from.

    Args:
        scene: a scene that is ready for models.
        window: pixels of its grid.
        answered: ``(H, W)`` bool, where the image has a value.
    """
    outer = scene.grid.with_halo(window, VEIL_PX + 1)
    inner = raster.within(window, outer)
    target = read_mask(scene.target, outer)[0]
    clear = is_clear(target)[inner]
    veiled = clear & near(is_occluded(target), VEIL_PX)[inner]
    if NO_ACQUISITION in scene.target.facts:
        clear, veiled = np.zeros_like(clear), np.zeros_like(clear)
    days = np.where(clear, 0, np.iinfo(np.int16).max).astype(np.int16)
    looks = clear.astype(np.int16)
    for frame in scene.context:
        seen = is_clear(read_mask(frame, window)[0])
        looks += seen
        away = np.int16(_days_between(frame, scene.target))
        np.minimum(days, away, out=days, where=seen)
    classes = np.full(clear.shape, FILLED, np.int16)
    classes[looks == 0] = NEVER_SEEN
    classes[clear] = OBSERVED
    classes[veiled] = VEILED
    classes[~answered & (looks > 0)] = NODATA
    return Provenance(classes, np.where(looks > 0, days, NODATA).astype(np.int16), looks)


def _days_between(frame: Frame, target: Frame) -> int:
    return min(abs((frame.day - target.day).days), np.iinfo(np.int16).max)
