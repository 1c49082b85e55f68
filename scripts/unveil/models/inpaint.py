"""Inpaint: one image continued under its clouds from its clear pixels, scale by scale.

At every scale a hidden pixel has the mean of clear pixels under a Gaussian, and the share of
clear pixels there: normalised convolution (Knutsson & Westin 1993). The finest scale where
that share is enough decides, and what is missing from it comes from the next coarser, as in
the pyramid of Gortler et al. (1996). Scales of :data:`FINE_PX` are computed on pixels; from
:data:`CELL_PX` on, each has cells of twice the size, of the whole scene, which are small
enough to be held, up to the single cell that is the mean of all clear pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unveil.models.base import Prediction
from unveil.models.classical import TargetOnly, keep_clear
from unveil.models.clear_mean import NOTHING_CLEAR
from unveil.raster import Grid
from unveil.scene import Inputs, Scene

FINE_PX = (2.0, 4.0, 8.0)
"""Standard deviations of the Gaussians on pixels, fine to coarse."""
CELL_PX = 16
"""Edge of the finest cells in pixels; their Gaussian has a standard deviation of one cell."""
ENOUGH = 0.1
"""Share of clear pixels under a Gaussian from which coarser scales count nothing; not tuned."""
LEAST = 1e-6
"""Share below which a mean is rounding."""
GAUSSIAN_REACH = 4


class Inpaint(TargetOnly):
    """Clear pixels of the target spread by Gaussians, the finest that has enough of them."""

    kind = "inpaint"
    citation = (
        "Knutsson & Westin 1993, Normalized and differential convolution, CVPR, "
        "doi:10.1109/CVPR.1993.341081, over the scales of a pyramid as in Gortler, Grzeszczuk, "
        "Szeliski & Cohen 1996, The Lumigraph, SIGGRAPH, doi:10.1145/237170.237200."
    )
    receptive_field = round(GAUSSIAN_REACH * FINE_PX[-1])

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Fill the cells of the whole scene; without a clear pixel there is no answer."""
        weighted, share = clear_cells(scene.grid, tiles, bands=len(scene.bands))
        self._cells = fill_cells(weighted, share)
        if not share.any():
            self.notes = (NOTHING_CLEAR,)

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the target where it is clear and the spread values elsewhere, NaN at nodata."""
        clear = inputs.target_clear
        if clear.all():
            return Prediction(inputs.target)
        row, col = (
            (start + np.arange(size) + 0.5) / CELL_PX - 0.5
            for start, size in zip(inputs.origin, inputs.shape, strict=True)
        )
        estimate = interpolate(self._cells, row, col).astype(np.float32)
        known, share = np.where(clear, inputs.target, 0), clear.astype(np.float32)
        for sigma in reversed(FINE_PX):
            estimate = refine(estimate, known, share, sigma=sigma)
        return Prediction(keep_clear(inputs, estimate))


def clear_cells(
    grid: Grid, tiles: Sequence[Inputs], *, bands: int
) -> tuple[np.ndarray, np.ndarray]:
    """Average the clear pixels of a scene over the area of each cell, hidden ones as 0.

    Returns:
        The values ``(B, R, C)`` and the share of clear pixels ``(R, C)``, float64; their ratio
        is the mean of a cell's clear pixels.
    """
    sums = np.zeros((bands + 1, *(-(-size // CELL_PX) for size in grid.shape)))
    for tile in tiles:
        clear = tile.target_clear
        values = np.concatenate([np.where(clear, tile.target, 0), clear[None]], dtype=np.float64)
        first = [start // CELL_PX for start in tile.origin]
        before = [start % CELL_PX for start in tile.origin]
        after = [-(b + n) % CELL_PX for b, n in zip(before, tile.shape, strict=True)]
        padded = np.pad(values, ((0, 0), *zip(before, after, strict=True)))
        blocks = _block_sums(padded, CELL_PX)
        rows, cols = (slice(f, f + n) for f, n in zip(first, blocks.shape[1:], strict=True))
        sums[:, rows, cols] += blocks
    sums /= CELL_PX**2
    return sums[:-1], sums[-1]


def _block_sums(values: np.ndarray, edge: int) -> np.ndarray:
    bands, height, width = values.shape
    return values.reshape(bands, height // edge, edge, width // edge, edge).sum(axis=(2, 4))


def fill_cells(weighted: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return a value for every cell, ``(B, R, C)`` float64; NaN where no cell has one.

    Args:
        weighted: ``(B, R, C)`` values of :func:`clear_cells`.
        share: ``(R, C)``.
    """
    if share.shape == (1, 1):
        with np.errstate(invalid="ignore"):
            return weighted / share
    odd = [(0, size % 2) for size in share.shape]
    pairs = np.pad(np.concatenate([weighted, share[None]]), ((0, 0), *odd))
    halved = _block_sums(pairs, 2) / 4
    coarse = fill_cells(halved[:-1], halved[-1])
    row, col = ((np.arange(size) + 0.5) / 2 - 0.5 for size in share.shape)
    return refine(interpolate(coarse, row, col), weighted, share, sigma=1.0)


def refine(
    coarser: np.ndarray, weighted: np.ndarray, share: np.ndarray, *, sigma: float
) -> np.ndarray:
    """Replace an estimate by means under a Gaussian, as far as enough clear pixels are there.

    Args:
        coarser: ``(B, H, W)`` the estimate of the next coarser scale.
        weighted: ``(B, H, W)`` values times share, 0 where nothing is clear.
        share: ``(H, W)`` 0...1, how much of each pixel or cell is clear.
        sigma: standard deviation in pixels or cells.
    """
    from scipy.ndimage import gaussian_filter  # lazy: a dry run predicts nothing

    smooth = {"sigma": sigma, "mode": "constant", "truncate": GAUSSIAN_REACH}
    support = gaussian_filter(share, **smooth)
    trust = np.where(support > LEAST, np.minimum(support / ENOUGH, 1), 0).astype(share.dtype)
    result = np.empty_like(coarser)
    for band, values in enumerate(weighted):
        mean = gaussian_filter(values, **smooth) / np.maximum(support, LEAST)
        # A coarser scale without an answer must not spoil a finer one.
        missing = np.where(trust < 1, (1 - trust) * coarser[band], 0)
        result[band] = trust * mean + missing
    return result


def interpolate(image: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Interpolate linearly, ``(B, R, C)`` to ``(B, len(rows), len(cols))``; edges are repeated.

    Args:
        image: values at whole positions.
        rows: positions wanted, in rows of the image.
        cols: likewise.
    """
    low, high, share = _neighbours(rows, image.shape[1])
    along = image[:, low] * (1 - share[:, None]) + image[:, high] * share[:, None]
    low, high, share = _neighbours(cols, image.shape[2])
    return along[..., low] * (1 - share) + along[..., high] * share


def _neighbours(positions: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside = np.clip(positions, 0, size - 1)
    low = np.floor(inside).astype(int)
    return low, np.minimum(low + 1, size - 1), inside - low
