"""Cutting a grid in tiles with a halo or in patches, and joining what they give.

Cores of tiles lie side by side; patches of one size overlap and are blended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rasterio.windows import Window

from unveil.models.base import Model
from unveil.raster import Grid, within

ALIGNMENT_PX = 256
"""Tiles of whole blocks are written faster."""


@dataclass(frozen=True)
class Tile:
    """A tile and the larger window that is read for it.

    Attributes:
        core: pixels that it is responsible for; the cores cover every pixel once.
        outer: pixels that are read: the core and its halo, clipped to the image.
        blended: whether all of it counts where it overlaps others, not its core alone.
    """

    core: Window
    outer: Window
    blended: bool = False

    @property
    def inside(self) -> tuple[slice, slice]:
        """The core within the outer window."""
        return within(self.core, self.outer)


def tiles_of(grid: Grid, *, tile_px: int, halo: int | None) -> list[Tile]:
    """Cut a grid into tiles; with ``halo`` None the whole image is one tile."""
    if halo is None:
        whole = Window(0, 0, grid.width, grid.height)
        return [Tile(whole, whole)]
    return [Tile(core, grid.with_halo(core, halo)) for core in grid.windows(tile_px)]


def cut(grid: Grid, model: Model, tile_px: int) -> list[Tile]:
    """Cut a grid the way a model needs it: whole, in tiles with a halo, or in patches."""
    if model.patch_px is not None:
        return patches_of(grid, patch_px=model.patch_px)
    return tiles_of(grid, tile_px=tile_px, halo=model.receptive_field)


def even_tile(grid: Grid, largest: int) -> int:
    """Return the smallest edge that cuts a grid in no more tiles than ``largest`` does."""
    length = max(grid.shape)
    edge = -(-length // -(-length // largest))
    aligned = -(-edge // ALIGNMENT_PX) * ALIGNMENT_PX
    return aligned if aligned <= largest else edge


def patches_of(grid: Grid, *, patch_px: int) -> list[Tile]:
    """Cut a grid in patches of one size that overlap by at least a quarter and are blended."""
    rows, cols = (_starts(length, patch_px) for length in grid.shape)
    tiles = []
    for row, row_core in _with_cores(rows, grid.height, patch_px):
        for col, col_core in _with_cores(cols, grid.width, patch_px):
            outer = Window(col, row, min(patch_px, grid.width), min(patch_px, grid.height))
            core = Window(col_core[0], row_core[0], col_core[1], row_core[1])
            tiles.append(Tile(core, outer, blended=True))
    return tiles


def _starts(length: int, patch: int) -> list[int]:
    if length <= patch:
        return [0]
    count = -(-(length - patch) // (patch * 3 // 4)) + 1
    return [round(i * (length - patch) / (count - 1)) for i in range(count)]


def _with_cores(
    starts: list[int], length: int, patch: int
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield each start with its core (offset, size), cut in the middle of the overlaps."""
    cuts = [0]
    cuts += [(a + patch + b) // 2 for a, b in zip(starts, starts[1:], strict=False)]
    cuts.append(length)
    for start_at, low, high in zip(starts, cuts, cuts[1:], strict=False):
        yield start_at, (low, high - low)


class Joint:
    """Joins what tiles give to one image, piece by piece.

    Cores lie side by side. Blended patches are weighted by the distance to their nearest
    border inside the image, along rows times along columns: from one patch to the next the
    result changes linearly, without a seam, and what one leaves empty (NaN) another fills.
    Only the pieces that later patches overlap are held.

    Args:
        tiles: all tiles of an image, row by row.
    """

    def __init__(self, tiles: Sequence[Tile]) -> None:
        slices = [tile.outer.toslices() for tile in tiles]
        self._rows, self._cols = (_Overlaps(axis) for axis in zip(*slices, strict=True))
        self._held: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, values: np.ndarray, tile: Tile) -> Iterator[tuple[Window, np.ndarray]]:
        """Take the next tile and yield what is complete, window by window.

        Args:
            values: ``(B, H, W)`` float32 of the tile's outer window, NaN where it has no answer.
            tile: one of the tiles, in their order.
        """
        if not tile.blended:
            yield tile.core, values[(slice(None), *tile.inside)]
            return
        height, width = tile.outer.toslices()
        weight = np.outer(self._rows.weights(height), self._cols.weights(width))
        weighted, weight = _weighted(values, weight.astype(np.float32))
        for rows, last_row in self._rows.pieces(height):
            for cols, last_col in self._cols.pieces(width):
                inside = (slice(None), _shifted(rows, height.start), _shifted(cols, width.start))
                key = rows.start, cols.start
                earlier, earlier_weight = self._held.pop(key, (0, 0))
                total, total_weight = earlier + weighted[inside], earlier_weight + weight[inside]
                if last_row and last_col:
                    none = np.full_like(total, np.nan)
                    mean = np.divide(total, total_weight, out=none, where=total_weight > 0)
                    yield Window.from_slices(rows, cols), mean
                else:
                    self._held[key] = total, total_weight


def _weighted(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seen = np.isfinite(values)
    return np.where(seen, values * weight, 0), seen * weight


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)


class _Overlaps:
    """How patches overlap along one axis."""

    def __init__(self, patches: Sequence[slice]) -> None:
        self._starts = sorted({patch.start for patch in patches})
        self._stops = sorted({patch.stop for patch in patches})

    def weights(self, patch: slice) -> np.ndarray:
        """Return the distance of each pixel's centre to the nearest border inside the image."""
        centres = np.arange(patch.start, patch.stop) + 0.5
        distance = np.full(len(centres), np.inf)
        if patch.start > self._starts[0]:
            distance = centres - patch.start
        if patch.stop < self._stops[-1]:
            distance = np.minimum(distance, patch.stop - centres)
        return np.where(np.isinf(distance), 1.0, distance)

    def pieces(self, patch: slice) -> Iterator[tuple[slice, bool]]:
        """Yield the parts of a patch between all borders, and whether it is their last one."""
        borders = sorted(n for n in {*self._starts, *self._stops} if patch.start <= n <= patch.stop)
        following = next((n for n in self._starts if n > patch.start), patch.stop)
        for start_at, stop_at in pairwise(borders):
            yield slice(start_at, stop_at), stop_at <= following
