"""What the dates of a scene say together, and no classifier of a single image can.

A pixel that is hidden on most dates and looks the same on each is a roof, sand or a lake: it is
released. So is a shadow on what is always dark. A pixel far brighter than its ground is cloud,
whatever a classifier says. Snow stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import BANDS, CLEAR, CLOUD, NODATA, SHADOW
from unveil.masks.mask_file import count_classes, cover_facts, mask_writer
from unveil.masks.veil import shared_bands
from unveil.scene import Frame, Scene, is_occluded, read_reflectance, read_veil, require_mask

SERIES = "series"
"""Its name among ``masks.detectors``: it settles what those who see one image leave."""
LEAST_LOOKS = 5
"""Dates with data from which a pixel has a history."""
SAME = 0.02
"""Reflectance within which a pixel looks the same: about what atmosphere and season change."""
DARK = 0.1
"""Near infrared of water, and of what lies in the shadow of a valley."""
BRIGHTER = 0.05
"""Excess from which what is called clear is cloud."""
NEAR_INFRARED = ("B08", "B8A")
Change = Callable[[Window], list[np.ndarray]]
"""Gives the new classes of all frames in a window, ``(H, W)`` uint8 each."""


def release_what_stays(scene: Scene) -> Scene:
    """Rewrite the masks of target and context without what :func:`released` finds.

    A scene of fewer than :data:`LEAST_LOOKS` frames, or without near infrared, stays as it is.

    Raises:
        InputError: if a raster is damaged.
    """
    frames = (scene.target, *scene.context)
    bands = history_bands(shared_bands(frames))
    if len(frames) < LEAST_LOOKS or not bands:
        return scene

    def change(window: Window) -> list[np.ndarray]:
        classes = np.stack([_classes(frame, window) for frame in frames])
        looks = np.stack([read_reflectance(frame, bands, window) for frame in frames])
        return list(np.where(released(looks, classes), CLEAR, classes).astype(np.uint8))

    return _rewrite(scene, frames, change)


def hide_what_is_brighter(scene: Scene) -> Scene:
    """Rewrite the masks of frames with a veil: clear pixels with much of it are cloud.

    Raises:
        InputError: if a raster is damaged.
    """
    frames = tuple(frame for frame in (scene.target, *scene.context) if frame.veil)

    def change(window: Window) -> list[np.ndarray]:
        return [
            with_brighter(_classes(frame, window), read_veil(frame, window)) for frame in frames
        ]

    return _rewrite(scene, frames, change)


def history_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the bands that pixels are known by: the shortest, and near infrared; none without."""
    infrared = [band for band in NEAR_INFRARED if band in bands]
    if not infrared:
        return ()
    shortest = min(bands, key=lambda band: BANDS[band].wavelength_nm)
    return (shortest, infrared[0]) if shortest != infrared[0] else ()


def released(looks: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return which pixels are called cloud or shadow and are neither, ``(T, H, W)`` bool.

    Args:
        looks: ``(T, 2, H, W)`` reflectance of the shortest band and near infrared, NaN where
            nodata.
        classes: ``(T, H, W)`` uint8.
    """
    known = np.isfinite(looks).all(axis=1) & (classes != NODATA)
    asked = (is_occluded(classes) & known).any(axis=0) & (known.sum(axis=0) >= LEAST_LOOKS)
    found = np.zeros(classes.shape, bool)
    found[:, asked] = _stays(looks[:, :, asked], classes[:, asked], known[:, asked])
    return found


def _stays(looks: np.ndarray, classes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return what :func:`released` does of pixels in a row, ``(T, N)`` bool."""
    hidden = is_occluded(classes) & known
    usual = _median(looks, known[:, None])
    gap = np.abs(looks - usual)
    same = (gap <= SAME).all(axis=1) & (_median(gap, known[:, None]) <= SAME).all(axis=0)
    mostly = 2 * hidden.sum(axis=0) >= known.sum(axis=0)
    open_ = known & (classes != CLOUD)
    infrared = _median(looks[:, 1], open_)
    dark = (infrared <= DARK) & (open_.sum(axis=0) >= LEAST_LOOKS)
    no_darker = looks[:, 1] >= infrared - SAME
    return (hidden & same & mostly) | ((classes == SHADOW) & known & dark & no_darker)


def with_brighter(classes: np.ndarray, veil: np.ndarray) -> np.ndarray:
    """Return classes ``(H, W)`` in which clear pixels with much excess are cloud."""
    return np.where((classes == CLEAR) & (veil > BRIGHTER), CLOUD, classes).astype(np.uint8)


def _median(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the lower median of known values along the first axis, inf where none is."""
    ordered = np.sort(np.where(known, values, np.inf), axis=0)
    middle = np.maximum(known.sum(axis=0, keepdims=True) - 1, 0) // 2
    return np.take_along_axis(ordered, np.broadcast_to(middle, (1, *values.shape[1:])), axis=0)[0]


def _classes(frame: Frame, window: Window) -> np.ndarray:
    return raster.read(require_mask(frame), window=window)[0]


def _rewrite(scene: Scene, frames: tuple[Frame, ...], change: Change) -> Scene:
    """Return a scene with other classes in the masks of some frames, and their covers."""
    counts = {frame.date: np.zeros(256, int) for frame in frames}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(mask_writer(require_mask(frame), scene.grid)) for frame in frames
        ]
        for window in scene.grid.windows():
            for frame, writer, classes in zip(frames, writers, change(window), strict=True):
                percent = raster.read(require_mask(frame), window=window)[1]
                writer.write(np.stack([classes, percent]), window=window)
                counts[frame.date] += count_classes(classes)
    done = {
        frame.path: replace(frame, facts=frame.facts | cover_facts(counts[frame.date]))
        for frame in frames
    }
    return replace(scene, frames=tuple(done.get(frame.path, frame) for frame in scene.frames))
