"""A mask that calls every pixel clear, for images that tests run models on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unveil import raster
from unveil.raster import Grid


def write_clear_mask(folder: Path, grid: Grid) -> Path:
    """Write the mask and return its path."""
    path = folder / "clear_mask.tif"
    zeros = np.zeros((1, *grid.shape), np.uint8)
    raster.write_cog(path, zeros, grid, descriptions=["CLASS"], nodata=None)
    return path
