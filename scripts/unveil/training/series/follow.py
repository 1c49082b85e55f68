"""Parcels of a clear image that follow changes seen on parcels of a series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.ndimage import gaussian_filter, map_coordinates

from unveil.places.series import Series
from unveil.scene import is_clear

PARCELS = 14


def follow(
    image: np.ndarray, leader: Series, dates: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Let the parcels of a clear image follow the changes seen on parcels of a series.

    The image's pixels are grouped by spectrum, and each group takes the relative change of
    one group of the series, date by date; dates keep their clouds, and get haze, noise and a
    shift of a fraction of a pixel of their own.

    Returns:
        ``(dates, B, H, W)`` float32.
    """
    height, width = image.shape[1:]
    rows, cols = leader.classes.shape[1:]
    row, col = int(rng.integers(height - rows + 1)), int(rng.integers(width - cols + 1))
    base = image[:, row : row + rows, col : col + cols].astype(np.float32)
    seed = int(rng.integers(2**31))
    kinds = _groups(gaussian_filter(base, (0, 1, 1)), PARCELS, seed)
    changes = _changes(leader, seed)
    factors = changes[rng.integers(len(changes), size=PARCELS)]  # (parcels, T, B)
    result = np.empty((len(dates), *base.shape), np.float32)
    for position, t in enumerate(dates):
        factor = gaussian_filter(factors[kinds, t].transpose(2, 0, 1), (0, 0.6, 0.6))
        frame = base * factor + rng.normal(0, 0.004) + rng.normal(0, 0.003, base.shape)
        if rng.random() < 0.3:
            shift = rng.normal(0, 0.25, 2)
            grid = np.mgrid[:rows, :cols] + shift[:, None, None]
            frame = np.stack([map_coordinates(b, grid, order=1, mode="nearest") for b in frame])
        result[position] = np.clip(frame, 1e-3, 1.2)
    return result


def _groups(image: np.ndarray, count: int, seed: int) -> np.ndarray:
    pixels = np.nan_to_num(image).reshape(len(image), -1).T
    pixels = np.log(np.maximum(pixels, 0.005))
    _, label = kmeans2(pixels, count, minit="points", iter=6, seed=seed, missing="warn")
    return label.reshape(image.shape[1:])


def _changes(leader: Series, seed: int) -> np.ndarray:
    """Return relative changes of groups of pixels of a series, ``(groups, T, B)``."""
    clear = is_clear(leader.classes)
    looks = np.where(clear[:, None], leader.reflectance, np.nan)
    looks = looks[:, :, ::2, ::2]
    with np.errstate(invalid="ignore"):
        typical = np.nan_to_num(np.nanmedian(looks, axis=0), nan=0.1)
    kinds = _groups(typical, PARCELS, seed)
    result = []
    for kind in np.unique(kinds):
        inside = looks[:, :, kinds == kind]
        count = np.isfinite(inside).sum(axis=2)
        mean = np.nansum(inside, axis=2) / np.maximum(count, 1)
        own = typical[:, kinds == kind].mean(axis=1)
        result.append(np.where(count > 0, mean / np.maximum(own, 0.01), 1.0))
    return np.clip(np.array(result), 0.3, 4.0).astype(np.float32)
