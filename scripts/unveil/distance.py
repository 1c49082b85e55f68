"""How far pixels are from cloud, in bounded memory."""

from __future__ import annotations

import numpy as np

BLOCK_PX = 1024
"""Rows and columns that are measured at once."""


def distance_from(hidden: np.ndarray, *, reach: int) -> np.ndarray:
    """Return the distance from the nearest hidden pixel, ``(H, W)`` float32 pixels.

    Args:
        hidden: ``(H, W)`` bool.
        reach: most that is measured; farther pixels get this.
    """
    from scipy.ndimage import distance_transform_edt  # lazy: a dry run measures nothing

    distance = np.full(hidden.shape, reach, np.float32)
    for top in range(0, hidden.shape[0], BLOCK_PX):
        for left in range(0, hidden.shape[1], BLOCK_PX):
            first_row, first_col = max(0, top - reach), max(0, left - reach)
            part = hidden[first_row : top + BLOCK_PX + reach, first_col : left + BLOCK_PX + reach]
            if not part.any():
                continue
            found = distance_transform_edt(~part)[top - first_row :, left - first_col :]
            here = distance[top : top + BLOCK_PX, left : left + BLOCK_PX]
            np.minimum(here, found[: here.shape[0], : here.shape[1]], out=here, casting="unsafe")
    return distance
