"""Windows of a grid: they cover it once, and a halo shows each its neighbourhood."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from unveil.raster import Grid, within

SIZES = st.integers(1, 40)


@given(SIZES, SIZES, st.integers(1, 24), st.integers(0, 30))
def test_a_window_with_its_halo_sees_all_pixels_within_reach_and_knows_its_own(
    height, width, block, halo
):
    grid = Grid("", (1, 0, 0, 0, -1, 0), height, width)
    image = np.arange(grid.pixels).reshape(grid.shape)
    rows, cols = np.indices(grid.shape)
    seen = np.zeros(grid.shape, int)
    for window in grid.windows(block):
        outer = grid.with_halo(window, halo)
        own = image[window.toslices()]
        np.testing.assert_array_equal(image[outer.toslices()][within(window, outer)], own)
        near = np.maximum(
            np.maximum(window.row_off - rows, rows - (window.row_off + window.height - 1)),
            np.maximum(window.col_off - cols, cols - (window.col_off + window.width - 1)),
        )
        np.testing.assert_array_equal(image[outer.toslices()].ravel(), image[near <= halo])
        seen[window.toslices()] += 1
    assert (seen == 1).all()
