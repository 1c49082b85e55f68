"""The scored set: what of a target counts as hidden, and where its truth is known.

One raster of classes, written with the scene and read by the metrics stage alone. It rests on the
masks that sources deliver, grown by constants; where a source delivers none, on the detectors with
their default settings. So no choice of ``masks`` in the config moves what models are judged on.

==========  =====================================================================================
class       pixels
==========  =====================================================================================
cloud,      hidden: what hides the ground in the target, grown by :data:`HIDDEN_GROWTH_PX`; of
shadow      the target itself, of the lender of its clouds, or as generated
nodata      the truth is not known: no data, or within :data:`TRUTH_MARGIN_PX` of its own clouds;
            nor is it known what a target without data hides
clear,      the rest
snow
==========  =====================================================================================
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.bands import NODATA
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.raster import Grid
from unveil.scene import JUDGED, Frame, is_clear, is_occluded
from unveil.sources.base import SourceRaster

TRUTH_MARGIN_PX = 5
"""Pixels around the delivered cloud and shadow of a truth that are no truth: real dates are
brighter there than on a clear day (blue +.13 at 1 to 2 px of 10 m, +.04 at 3 to 5, +.02 beyond),
and coregistration may move a truth by as much."""

ReadClasses = Callable[[Window], np.ndarray]
"""Gives the ``(H, W)`` uint8 classes of a window."""
Judge = Callable[[Frame, Grid, str], np.ndarray]
"""Gives the ``(H, W)`` classes, not grown, of a frame of a level that has no delivered mask."""


def scored_set(
    target: Frame,
    truth: Frame,
    hidden: SourceRaster | None,
    *,
    grid: Grid,
    level: str,
    judge: Judge,
) -> SourceRaster:
    """Return the raster of the scored set, band ``CLASS``, made window by window.

    Args:
        target: the target as written, with its delivered mask if there is one.
        truth: the truth, likewise.
        hidden: band ``CLASS``, what hides the target by construction; None where clouds are its
            own.
        grid: of the scene.
        level: ``L1C`` or ``L2A``.
        judge: finds clouds where no mask is delivered.
    """
    own = grown(classes_in(truth, grid, level, judge), grid, TRUTH_MARGIN_PX)
    seen = (target, truth) if hidden is None else (truth,)
    judged = [frame.role for frame in seen if frame.mask is None]
    hides = (
        grown(classes_in(target, grid, level, judge), grid, HIDDEN_GROWTH_PX)
        if hidden is None
        else _classes_of(hidden)
    )

    def read(window: Window) -> np.ndarray:
        known = is_clear(own(window))
        for frame in seen:
            known &= (raster.read(frame.path, window=window) != 0).all(axis=0)
        return np.where(known, hides(window), NODATA)[None].astype(np.uint8)

    return SourceRaster(("CLASS",), read, {JUDGED: judged} if judged else {})


def classes_in(frame: Frame, grid: Grid, level: str, judge: Judge) -> ReadClasses:
    """Return what reads the classes of a frame: of its delivered mask, else as judged."""
    if frame.mask is None:
        whole = judge(frame, grid, level)
        return lambda window: whole[window.toslices()]
    path = frame.mask
    with raster.open_raster(path) as dataset:
        band = dataset.descriptions[0] or ""
    return lambda window: classmap.from_delivered(raster.read(path, window=window)[0], band)


def grown(read: ReadClasses, grid: Grid, pixels: int) -> ReadClasses:
    """Return what reads the same classes with cloud and shadow grown, by windows with a halo."""

    def read_grown(window: Window) -> np.ndarray:
        outer = grid.with_halo(window, pixels)
        return classmap.dilate(read(outer), pixels)[raster.within(window, outer)]

    return read_grown


def share_hidden(scored: Frame, grid: Grid) -> float:
    """Return the hidden fraction of the pixels of a scored set whose truth is known, 0...1."""
    hidden = known = 0
    for window in grid.windows():
        classes = raster.read(scored.path, window=window)[0]
        known += int(np.count_nonzero(classes != NODATA))
        hidden += int(np.count_nonzero(is_occluded(classes)))
    return hidden / known if known else 0.0


def _classes_of(made: SourceRaster) -> ReadClasses:
    return lambda window: made.read(window)[0]
