"""Windows padded to cells of a scene, for networks that halve the size of an image."""

from __future__ import annotations

import numpy as np


def pad_to_grid(
    images: np.ndarray, *, origin: tuple[int, int], step: int, least: int
) -> np.ndarray:
    """Repeat border pixels so that the last two axes start and end on multiples of ``step``.

    Multiples are counted from the scene's corner, so every window of a scene is cut in the
    same cells.

    Args:
        images: ``(..., H, W)``.
        origin: row and column of the window in the scene.
        step: size of a cell.
        least: fewest rows and columns of the result, a multiple of ``step``.
    """
    widths = [(0, 0)] * (images.ndim - 2)
    for start, size in zip(origin, images.shape[-2:], strict=True):
        before = start % step
        widths.append((before, max(-(before + size) % step, least - before - size)))
    return np.pad(images, widths, mode="edge")


def unpad(images: np.ndarray, *, origin: tuple[int, int], step: int, shape: tuple) -> np.ndarray:
    """Undo :func:`pad_to_grid` for a window of ``shape`` rows and columns."""
    top, left = origin[0] % step, origin[1] % step
    return images[..., top : top + shape[0], left : left + shape[1]]
