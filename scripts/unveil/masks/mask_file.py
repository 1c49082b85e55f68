"""The file of a mask, and what its classes cover."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling

from unveil import raster
from unveil.bands import CLOUD, NODATA, SHADOW
from unveil.raster import Grid

MASK_BANDS = ("CLASS", "CLOUD_PROBABILITY")


def mask_writer(path: Path, grid: Grid) -> AbstractContextManager[rasterio.io.DatasetWriter]:
    """Return what writes a mask, uint8 classes and percent, window by window."""
    return raster.cog_writer(
        path,
        grid,
        dtype="uint8",
        descriptions=MASK_BANDS,
        nodata=NODATA,
        overviews=Resampling.mode,
    )


def count_classes(classes: np.ndarray) -> np.ndarray:
    """Return the pixels of each class, ``(256,)``."""
    return np.bincount(classes.ravel(), minlength=256)


def cover_facts(counts: np.ndarray) -> dict[str, float]:
    """Return the facts of a frame that say what share of its valid pixels is hidden.

    Args:
        counts: of :func:`count_classes`.
    """
    valid = int(counts.sum() - counts[NODATA])
    return {
        "eo:cloud_cover": percent_of(int(counts[CLOUD]), valid),
        "unveil:shadow_cover": percent_of(int(counts[SHADOW]), valid),
    }


def percent_of(count: int, valid: int) -> float:
    """Return a share of valid pixels in percent; 0 without any."""
    return round(100 * count / valid, 2) if valid else 0.0
