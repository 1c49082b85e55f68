"""The contract of a protocol: what it asks of a row, and how it makes the target and its truth."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import Protocol
from unveil.raster import Grid
from unveil.sources.base import SourceRaster, SourceSeries, from_array


@dataclass(frozen=True)
class ProtocolSettings:
    """What protocols need from the config.

    Attributes:
        seed: seed of random choices.
    """

    seed: int


@dataclass(frozen=True)
class BadCell:
    """What is wrong with a row of the scene table.

    Attributes:
        column: the column at fault.
        message: what is wrong, with the value found.
        remedy: what to do about it.
    """

    column: str
    message: str
    remedy: str


@dataclass(frozen=True)
class MadeTarget:
    """A target as it will be written, window by window.

    Attributes:
        raster: what models see.
        mask: delivered or made classes of it; None where detectors look for clouds.
        reference: the truth, or None.
        reference_date: its date.
        reference_mask: delivered classes of the truth; None where detectors look for clouds.
        occlusion: band ``CLASS``: what is hidden by construction; None where clouds are the
            target's own. Where the truth is known, :mod:`unveil.assembly.scored` finds out.
        facts: recorded with the scene.
        donor_date: the date that lends its clouds; empty for none.
    """

    raster: SourceRaster
    mask: SourceRaster | None
    reference: SourceRaster | None = None
    reference_date: str = ""
    reference_mask: SourceRaster | None = None
    occlusion: SourceRaster | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    donor_date: str = ""


class Maker(ABC):
    """How the targets of one protocol are made.

    Class attributes:
        protocol: what everybody may know of it.
    """

    protocol: ClassVar[Protocol]

    def complaint(self, row: SceneRow) -> BadCell | None:
        """Return what a row lacks for this protocol, or None when it lacks nothing."""
        return None

    @abstractmethod
    def make(self, row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> MadeTarget:
        """Make the target of a row, whose date the series has.

        Raises:
            InputError: when the row asks for what the source does not have.
        """


def cover_of(row: SceneRow) -> float:
    """Return the fraction of pixels to hide that a row asks for.

    Raises:
        InputError: if it asks for none.
    """
    if row.cloud_level is None:
        raise InputError(
            "no cloud level",
            field=f"scene {row.scene}: cloud_level",
            remedy="give the fraction of pixels to hide, e.g. 0.5",
        )
    return row.cloud_level


def scene_seed(seed: int, scene: str) -> np.random.Generator:
    """Return a generator that depends on the run's seed and the scene's id only."""
    digest = hashlib.sha256(scene.encode()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])


def classes_of(mask: SourceRaster, grid: Grid) -> np.ndarray:
    """Return the classes of a delivered mask, ``(H, W)`` uint8."""
    whole = Window(0, 0, grid.width, grid.height)
    return classmap.from_delivered(mask.read(whole)[0], mask.bands[0])


def mask_of(classes: np.ndarray, **facts: Any) -> SourceRaster:
    """Return ``(H, W)`` classes as a mask that a source might have delivered."""
    return from_array(classes[None], ("CLASS",), **facts)


def has_data(source: SourceRaster, grid: Grid) -> np.ndarray:
    """Return where every band of an image has data, ``(H, W)`` bool."""
    found = np.zeros(grid.shape, bool)
    for window in grid.windows():
        found[window.toslices()] = (source.read(window) != 0).all(axis=0)
    return found
