"""Clear pixels of the target that lie far from cloud: what a target date tells of itself.

What a mask calls clear near cloud is not: haze and missed rims brighten it. So models that
learn from the target's own pixels take those farther than ten pixels from cloud and shadow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from unveil.scene import Inputs, Scene, is_occluded

BLOCK_PX, REACH = 5, 2
"""A pixel is far from cloud if the block that it is in, and two blocks around, have none."""
MOST_SAMPLES = 2**14


def measure_far_pixels(
    scene: Scene, tiles: Iterable[Inputs], measure: Callable[[Inputs, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return what is measured at clear target pixels far from cloud, ``(F, N)`` float32.

    Pixels lie on an even grid over the scene, so that they are the same however it is cut in
    tiles, and few enough for the memory of any scene.

    Args:
        scene: its grid counts.
        tiles: its windows without overlap.
        measure: gives ``(F, n)`` from a window and the flat numbers of n of its pixels.
    """
    from scipy.ndimage import binary_dilation  # lazy: a dry run predicts nothing

    height, width = scene.grid.height, scene.grid.width
    stride = max(1, math.ceil(math.sqrt(height * width / MOST_SAMPLES)))
    cloudy = np.zeros((-(-height // BLOCK_PX), -(-width // BLOCK_PX)), bool)
    found, blocks = [], []
    for tile in tiles:
        rows, cols = (
            first + np.arange(n) for first, n in zip(tile.origin, tile.shape, strict=True)
        )
        row, col = np.nonzero(is_occluded(tile.target_class))
        cloudy[rows[row] // BLOCK_PX, cols[col] // BLOCK_PX] = True
        on_grid = (rows % stride == 0)[:, None] & (cols % stride == 0)
        row, col = np.nonzero(on_grid & tile.target_clear)
        blocks.append((rows[row] // BLOCK_PX, cols[col] // BLOCK_PX))
        found.append(measure(tile, row * tile.shape[1] + col).astype(np.float32))
    near = binary_dilation(cloudy, np.ones((2 * REACH + 1,) * 2, bool))
    far = [~near[block] for block in blocks]
    return np.concatenate([part[:, use] for part, use in zip(found, far, strict=True)], axis=1)
