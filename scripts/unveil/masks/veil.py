"""The veil of every frame: its excess over the ground that the other frames of its scene tell.

It is estimated in cells of about 40 m, for a veil is smooth and sixteen times fewer pixels cost
sixteen times less: the mean of a cell's clear pixels less its ground, smoothed among clear pixels;
likewise of those under cloud and shadow, so that neither bleeds into the other. No frame counts
for its own ground, and the truth counts for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import BANDS
from unveil.distance import distance_from
from unveil.excess import TRUSTED_PX, excess_to_dn, ground_of, smooth_excess
from unveil.masks.detectors.coarse import block_means, coarse_step
from unveil.raster import Grid
from unveil.scene import Frame, Scene, is_clear, is_occluded, read_mask, read_reflectance

CELL_M = 40.0
SIGMA_CELLS, REACH_CELLS = 1.0, 3
"""The Gaussian that smooths an excess, and how far it looks."""
HALO_CELLS = REACH_CELLS + 1
"""Cells around a window that its pixels depend on: one more, to draw between cells."""
GROUND_BANDS = 4
"""Bands, of the shortest, that a ground is the median in; all tell the excess no better."""
LEAST_CLEAR = 0.5
"""Share of a cell from which a date tells its ground."""
WINDOW_PX = 2 * raster.BLOCK
"""Edge of a window: of smaller ones, more is read twice."""
VEIL_BANDS = ("EXCESS",)


def estimate_veils(scene: Scene, folder: Path) -> Scene:
    """Write the excess of the target and of every context frame, and return the scene with them.

    ``veils/DATE.tif`` is uint16, ``10000 (excess + 1)`` in reflectance of the shortest band, 0
    where the frame is nodata or no other frame tells the ground. A scene of one frame gets none,
    nor do frames that have no band in common.

    Args:
        scene: a scene whose frames have their final masks.
        folder: folder of the scene.

    Raises:
        InputError: if a raster is damaged.
    """
    frames = (scene.target, *scene.context)
    if len(frames) == 1 or not shared_bands(frames):
        return scene
    step = coarse_step(scene.grid, CELL_M)
    paths = {frame.path: folder / "veils" / f"{frame.date}.tif" for frame in frames}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                raster.cog_writer(
                    paths[frame.path], scene.grid, dtype="uint16", descriptions=VEIL_BANDS, nodata=0
                )
            )
            for frame in frames
        ]
        for window in scene.grid.windows(step * (WINDOW_PX // step)):
            for writer, dn in zip(writers, veils_of(frames, scene.grid, window, step), strict=True):
                writer.write(dn[None], window=window)
    return replace(
        scene,
        frames=tuple(
            replace(frame, veil=paths[frame.path]) if frame.path in paths else frame
            for frame in scene.frames
        ),
    )


def shared_bands(frames: Sequence[Frame]) -> tuple[str, ...]:
    """Return the bands that all frames have, in the order of the first."""
    return tuple(b for b in frames[0].bands if all(b in frame.bands for frame in frames))


def shortest_bands(bands: tuple[str, ...]) -> tuple[str, ...]:
    """Return the bands that the ground is found in, by wavelength, the shortest first."""
    return tuple(sorted(bands, key=lambda band: BANDS[band].wavelength_nm)[:GROUND_BANDS])


@dataclass(frozen=True)
class _Cells:
    """One frame, cell by cell.

    Attributes:
        clear: ``(B, h, w)`` mean of a cell's clear pixels, NaN where it has none.
        clear_share: ``(h, w)`` share of clear pixels.
        hidden: ``(B, h, w)`` mean of those under cloud and shadow, likewise.
        hidden_share: ``(h, w)`` their share.
        distance: ``(h, w)`` pixels from the nearest cell with cloud or shadow, at least 1.
        is_hidden: ``(H, W)`` bool, pixel by pixel.
        has_data: ``(H, W)`` bool.
    """

    clear: np.ndarray
    clear_share: np.ndarray
    hidden: np.ndarray
    hidden_share: np.ndarray
    distance: np.ndarray
    is_hidden: np.ndarray
    has_data: np.ndarray


def veils_of(frames: tuple[Frame, ...], grid: Grid, window: Window, step: int) -> list[np.ndarray]:
    """Return the stored excess of all frames in one window, ``(H, W)`` uint16 each.

    Args:
        frames: with masks.
        grid: their grid.
        window: starts on a whole cell.
        step: pixels along the edge of a cell.
    """
    outer = grid.with_halo(window, HALO_CELLS * step)
    bands = shortest_bands(shared_bands(frames))
    cells = [_read_cells(frame, bands, grid=grid, window=outer, step=step) for frame in frames]
    looks = np.stack([one.clear for one in cells])
    told = np.stack([one.clear_share >= LEAST_CLEAR for one in cells])
    distance = np.stack([one.distance for one in cells])
    days = np.array([frame.day.toordinal() for frame in frames])
    inside, found = raster.within(window, outer), []
    for number, one in enumerate(cells):
        others = np.arange(len(frames)) != number
        ground = ground_of(
            looks[others],
            told[others],
            days=(days[others] - days[number]).tolist(),
            distance=distance[others],
        )[0]
        excess = np.where(
            one.is_hidden,
            _spread(one.hidden[0] - ground, one.hidden_share, one.is_hidden.shape, step),
            _spread(one.clear[0] - ground, one.clear_share, one.is_hidden.shape, step),
        )
        found.append(excess_to_dn(np.where(one.has_data, excess, np.nan)[inside]))
    return found


def _read_cells(
    frame: Frame, bands: tuple[str, ...], *, grid: Grid, window: Window, step: int
) -> _Cells:
    """Read one frame's window, which starts on a whole cell."""
    image = read_reflectance(frame, bands, window)
    reach = -(-TRUSTED_PX // step)
    outer = grid.with_halo(window, reach * step)
    around = read_mask(frame, outer)[0]
    classes = around[raster.within(window, outer)]
    has_data = np.isfinite(image).all(axis=0)
    parts = [(is_clear(classes) & has_data), (is_occluded(classes) & has_data)]
    clear, hidden = (block_means(np.where(part, image, np.nan), step) for part in parts)
    shares = [block_means(part[None].astype(np.float32), step)[0] for part in parts]
    clouded = block_means(is_occluded(around)[None].astype(np.float32), step)[0] > 0
    top, left = ((a - b) // step for a, b in zip(_start(window), _start(outer), strict=True))
    height, width = shares[0].shape
    distance = distance_from(clouded, reach=reach)[top : top + height, left : left + width]
    return _Cells(
        clear=clear,
        clear_share=shares[0],
        hidden=hidden,
        hidden_share=shares[1],
        distance=np.maximum(distance * step, 1),
        is_hidden=is_occluded(classes),
        has_data=has_data,
    )


def _start(window: Window) -> tuple[int, int]:
    return int(window.row_off), int(window.col_off)


def _spread(excess: np.ndarray, share: np.ndarray, shape: tuple[int, int], step: int) -> np.ndarray:
    """Return the excess of pixels ``(H, W)`` from that of cells, smoothed and drawn between them.

    Args:
        excess: ``(h, w)``, NaN where unknown.
        share: ``(h, w)``, what each cell weighs.
        shape: rows and columns of pixels.
        step: pixels along the edge of a cell.
    """
    smooth = smooth_excess(excess[None], share, sigma=SIGMA_CELLS, reach=REACH_CELLS)[0]
    rows, cols = (slice(0, size) for size in shape)
    known = np.isfinite(smooth)
    if known.all():
        return _between(smooth, step)[rows, cols]
    total, weight = (
        _between(values, step)[rows, cols] for values in (np.where(known, smooth, 0.0), known)
    )
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def _between(cells: np.ndarray, step: int) -> np.ndarray:
    """Return pixels ``(H, W)`` float32 by linear interpolation between the middles of cells."""
    pixels = cells.astype(np.float32)
    for axis, size in enumerate(cells.shape):
        at = np.clip((np.arange(size * step) + 0.5) / step - 0.5, 0, size - 1)
        low = at.astype(int)
        share = (at - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        after = pixels.take(np.minimum(low + 1, size - 1), axis)
        pixels = pixels.take(low, axis)
        pixels += share * (after - pixels)
    return pixels
