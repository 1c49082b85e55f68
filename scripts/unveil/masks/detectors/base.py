"""The contract of a detector: where it applies, how far it looks, and what it says of a pixel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from rasterio.windows import Window

from unveil.bands import UNKNOWN_PROBABILITY
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import Frame


@dataclass(frozen=True)
class Votes:
    """What is found in a window or in a whole frame, ``(H, W)`` each; small on purpose.

    Attributes:
        cloud: bool.
        shadow: bool.
        snow: bool.
        missing: bool; what a detector calls nodata beside pixels without data.
        percent: uint8, probability of cloud in percent, 255 where unknown.
    """

    cloud: np.ndarray
    shadow: np.ndarray
    snow: np.ndarray
    missing: np.ndarray
    percent: np.ndarray

    @classmethod
    def none(cls, shape: tuple[int, int], **found: np.ndarray) -> Votes:
        """Return votes of which all but ``found`` say nothing."""
        empty = {f.name: np.zeros(shape, bool) for f in fields(cls) if f.name not in found}
        if "percent" in empty:
            empty["percent"] = np.full(shape, UNKNOWN_PROBABILITY, np.uint8)
        return cls(**empty, **found)


class Detector(ABC):
    """One way to find clouds in one frame.

    It is made for a frame to which it applies, and may read all of it then; it votes window by
    window. Of detectors that tell the same, all vote, or the one registered first is believed
    (:attr:`unveil.masks.options.MaskOptions.combine`).

    Args:
        frame: the frame; ``frame.mask`` is what the source delivered, if anything.
        grid: its grid.
        options: settings of the stage.
        level: processing level of the frame, ``L1C`` or ``L2A``.

    Class attributes:
        name: what ``masks.detectors`` of the config says.
        tells: the fields of :class:`Votes` that it can fill.
        alone: whether no other is asked where it applies and the first is believed.
        last_resort: whether it is asked only for what no other can tell.

    Attributes:
        label: what the frame's facts call it.
        step: pixels along an edge that it sees as one; windows start on such a one.
        halo_px: pixels around a window that its votes depend on.
    """

    name: ClassVar[str]
    tells: ClassVar[frozenset[str]]
    alone: ClassVar[bool] = False
    last_resort: ClassVar[bool] = False

    step: int = 1
    halo_px: int = 0

    def __init__(self, frame: Frame, grid: Grid, options: MaskOptions, *, level: str) -> None:
        self.frame, self.grid, self.options, self.level = frame, grid, options, level
        self.label = self.name

    @classmethod
    @abstractmethod
    def refusal(cls, frame: Frame, level: str) -> str | None:
        """Return why a frame of a processing level cannot be judged, or None when it can."""

    @abstractmethod
    def vote(self, reflectance: np.ndarray, window: Window, asked: frozenset[str]) -> Votes:
        """Return the votes of a window.

        Args:
            reflectance: ``(B, H, W)`` float32 of the frame's bands, NaN where nodata.
            window: where that lies in the frame.
            asked: the part of ``tells`` that is wanted.

        Raises:
            InputError: for values that it cannot judge.
        """

    def settle(self, votes: Votes) -> list[str]:
        """Take back, in place, what the votes of the whole frame make impossible; say why."""
        return []
