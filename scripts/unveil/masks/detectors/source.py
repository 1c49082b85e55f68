"""Detector ``source``: the mask that a source delivers with a frame (SCL, or classes)."""

from __future__ import annotations

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.bands import CLOUD, NODATA, SHADOW, SNOW
from unveil.errors import InputError
from unveil.masks.detectors.base import Detector, Votes
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import DECLARED_CLEAR, Frame


class DeliveredMask(Detector):
    """The classes of whoever made the image.

    Raises:
        InputError: if the mask is damaged or lies on another grid.
    """

    name = "source"
    tells = frozenset(("cloud", "shadow", "snow", "missing"))
    alone = True

    def __init__(self, frame: Frame, grid: Grid, options: MaskOptions, *, level: str) -> None:
        super().__init__(frame, grid, options, level=level)
        if frame.mask is None:
            raise InputError("the source delivers no mask", file=frame.path, field="mask")
        self.mask = frame.mask
        with raster.open_raster(self.mask) as dataset:
            band, shape = dataset.descriptions[0] or "", dataset.shape
        if shape != grid.shape:
            raise InputError(
                f"mask of shape {shape} for frames of {grid.shape}",
                file=self.mask,
                remedy="resample the mask to the grid of the frames (nearest neighbour)",
            )
        self.band = band
        self.label = "declared clear" if DECLARED_CLEAR in frame.facts else band.lower()

    @classmethod
    def refusal(cls, frame: Frame, level: str) -> str | None:
        """Refuse frames without a delivered mask."""
        return None if frame.mask is not None else "the source delivers no mask"

    def vote(self, reflectance: np.ndarray, window: Window, asked: frozenset[str]) -> Votes:
        """Return the delivered classes.

        Raises:
            InputError: for numbers that are no class.
        """
        delivered = raster.read(self.mask, window=window)[0]
        try:
            classes = classmap.from_delivered(delivered, self.band)
        except InputError as error:
            raise InputError(str(error), file=self.mask) from error
        return Votes.none(
            classes.shape,
            cloud=classes == CLOUD,
            shadow=classes == SHADOW,
            snow=classes == SNOW,
            missing=classes == NODATA,
        )
