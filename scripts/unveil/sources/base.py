"""The contract of a source: what it asks of a row, which files it reads, what it delivers.

A source is asked at three times. While the scene table is read: which columns it needs. While the
workflow's graph is built: patches, files and sizes, from names and first bytes alone, as there
may be ten thousand scenes. In a job: all rasters of a place, on one grid, window by window.
"""

from __future__ import annotations

import errno
import os
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.raster import Grid

PATCH_PIXELS = 256 * 256
"""Of the benchmark datasets."""
ReadWindow = Callable[[Window], np.ndarray]
File = TypeVar("File")
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class SourceRaster:
    """One raster of a source.

    Attributes:
        bands: names of its bands.
        read: reads a window, ``(B, H, W)``; optical uint16 DN x 10000 with the offset
            applied and 0 for nodata, radar float32 dB with NaN, masks uint8.
        facts: what is recorded with the frame (source href, offset, level ...).
        read_zeros: reads where an optical file holds the number 0, ``(B, H, W)`` bool; None
            where nothing tells that from other fill.
    """

    bands: tuple[str, ...]
    read: ReadWindow
    facts: dict[str, Any] = field(default_factory=dict)
    read_zeros: ReadWindow | None = None

    def with_bands(self, bands: tuple[str, ...]) -> SourceRaster:
        """Return the raster with some of its bands only."""
        if bands == self.bands:
            return self
        at = [self.bands.index(name) for name in bands]
        return replace(self, bands=bands, read=lambda window: self.read(window)[at])


@dataclass(frozen=True)
class Unusable:
    """Why a date of a source is left out, and what would help."""

    reason: str
    remedy: str

    @classmethod
    def of(cls, error: InputError) -> Unusable:
        """Return what an error says that only its date suffers from.

        Raises:
            InputError: the same, if the machine is at fault: another run may read the date.
        """
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in (None, errno.ENOENT):
            raise error
        return cls(error.fault, error.remedy or "use another date")


@dataclass(frozen=True)
class SourceSeries:
    """All rasters of one place, by date.

    Attributes:
        grid: the one grid they lie on.
        place: place id.
        optical: Sentinel-2 frames.
        masks: delivered masks, band ``SCL`` or ``CLASS``.
        radar: Sentinel-1 frames.
        reference: a clear image delivered apart from the series, or None.
        reference_mask: its mask, where there is one.
        facts: level, licence, attribution ...
        target_date: date of the target where the source itself names it; else empty.
        reference_date: date of ``reference``, or of the frame that the source names as truth;
            else empty.
        cloud_date: date that lends its clouds, where the source names it; else empty.
        declared_clear: dates that somebody looked at and found clear.
        declarable: whether its folder has a ``scene.yaml`` in which somebody may do so.
        left_out: dates that are there and cannot be used.
    """

    grid: Grid
    place: str
    optical: dict[str, SourceRaster]
    masks: dict[str, SourceRaster] = field(default_factory=dict)
    radar: dict[str, SourceRaster] = field(default_factory=dict)
    reference: SourceRaster | None = None
    reference_mask: SourceRaster | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    target_date: str = ""
    reference_date: str = ""
    cloud_date: str = ""
    declared_clear: frozenset[str] = frozenset()
    declarable: bool = False
    left_out: dict[str, Unusable] = field(default_factory=dict)

    def without_radar(self, dates: Mapping[str, Unusable]) -> SourceSeries:
        """Return the series without some radar dates."""
        return replace(
            self,
            radar={date: image for date, image in self.radar.items() if date not in dates},
            left_out={**self.left_out, **{of_radar(date): why for date, why in dates.items()}},
        )

    def without(self, dates: Mapping[str, Unusable]) -> SourceSeries:
        """Return the series without some optical dates and their masks."""
        return replace(
            self,
            optical={date: frame for date, frame in self.optical.items() if date not in dates},
            masks={date: mask for date, mask in self.masks.items() if date not in dates},
            left_out={**self.left_out, **dates},
        )


def of_radar(date: str) -> str:
    """Return how a date of the radar is called among those that are left out."""
    return f"{date} (radar)"


def open_dates(
    files: Mapping[str, File], open_one: Callable[[str, File], Opened]
) -> tuple[dict[str, Opened], dict[str, Unusable]]:
    """Open the files of many dates, and leave out those that cannot be used, with their reason.

    Args:
        files: date -> what is opened.
        open_one: opens the file of a date.

    Raises:
        InputError: if none can be used: that of the first.
    """
    opened: dict[str, Opened] = {}
    faults: dict[str, InputError] = {}
    for date, file in files.items():
        try:
            opened[date] = open_one(date, file)
        except InputError as error:
            faults[date] = error
    if faults and not opened:
        raise next(iter(faults.values()))
    return opened, {date: Unusable.of(error) for date, error in faults.items()}


def usual_grid(files: Mapping[str, Path], target: str) -> Grid:
    """Return the grid that most rasters lie on; of two as usual, that of the target.

    Args:
        files: date -> raster; a damaged one has none.
        target: date of the target, if it is known.

    Raises:
        InputError: if all are damaged.
    """

    def grid_at(date: str, path: Path) -> Grid:
        with raster.open_raster(path) as dataset:
            return raster.grid_of(dataset)

    grids, _ = open_dates(files, grid_at)
    counts = Counter(grids.values())
    return max(counts, key=lambda grid: (counts[grid], grid == grids.get(target)))


def from_array(data: np.ndarray, bands: tuple[str, ...], **facts: Any) -> SourceRaster:
    """Wrap an array ``(B, H, W)`` that is already in memory."""

    def read(window: Window) -> np.ndarray:
        rows, cols = window.toslices()
        return data[:, rows, cols]

    return SourceRaster(bands, read, facts)


@dataclass(frozen=True)
class Size:
    """How large a scene is.

    Attributes:
        pixels: of its grid.
        frames: Sentinel-2 frames, the target among them.
    """

    pixels: int
    frames: int


class Source(ABC):
    """One layout of files, or one kind of service, that imagery comes from.

    ``settings`` are section ``sources`` of the config, with all that a search needs in ``stac``.

    Class attributes:
        kind: what column ``source`` of the scene table says.
        required: columns that its rows must fill, with the remedy for who left one out.
        target_auto: protocols for which ``target_date: auto`` finds a target among its dates.
        surveyed: whether pairs are planned from its masks while the scene table is read.
        pair_days: most days from target to truth where both are chosen and the row says none;
            0 where the source names them itself.
        splits: whether it is a dataset of patches in official splits.
        searched: whether a catalogue is searched for a scene, and the answer kept in a lock.
        made: whether a rule of the workflow fetches its files, which may not be there before.
    """

    kind: ClassVar[str]
    required: ClassVar[Mapping[str, str]] = {}
    target_auto: ClassVar[tuple[str, ...]] = ()
    surveyed: ClassVar[bool] = False
    pair_days: ClassVar[int] = 0
    splits: ClassVar[bool] = False
    searched: ClassVar[bool] = False
    made: ClassVar[bool] = False

    @abstractmethod
    def files(self, row: SceneRow) -> Iterable[str]:
        """List the local files that a scene is made of, for the workflow to watch."""

    @abstractmethod
    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return how large a scene will be, without opening its images.

        Raises:
            InputError, OSError, ValueError, KeyError, struct.error: if its files do not tell.
        """

    @abstractmethod
    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open the input of one scene.

        Raises:
            InputError: whatever is wrong with the input, with its remedy.
        """

    def require_input(self, row: SceneRow) -> None:
        """Refuse a row whose input is not there.

        Raises:
            InputError: if the folder does not exist.
        """
        if not Path(row.path).is_dir():
            raise InputError(
                "folder not found",
                file=row.path,
                field=f"scene {row.scene}: path",
                remedy="give the path relative to the working directory",
            )

    def known_dates(self, row: SceneRow) -> tuple[str, ...] | None:
        """List the dates that there are, where the names of files tell; None where they do not.

        Raises:
            InputError: if a name that should be a date is none.
        """
        return None

    def product_dates(self, row: SceneRow, settings: Mapping[str, Any]) -> tuple[str, ...] | None:
        """List the dates with an acquisition; None where a search will tell them.

        Raises:
            InputError: if this source cannot tell.
        """
        known = self.known_dates(row)
        if known is None:
            raise InputError(
                f"target_date {row.target_date!r}, but source {self.kind} does not tell its dates",
                file=row.path,
                field=f"scene {row.scene}: target_date",
                remedy="name a date, or use source local, safe (products under their own names) "
                "or stac",
            )
        return known

    def patches(self, row: SceneRow) -> list[tuple[str, str]]:
        """List the patches of a row's split that are there, as pairs of name and place.

        Raises:
            InputError: for an unknown split.
        """
        raise NotImplementedError(f"source {self.kind} has no splits")

    def official_cloud(self, settings: Mapping[str, Any]) -> tuple[float, float] | None:
        """Return the least and most cloud of the inputs of a dataset's official sample.

        None where target and truth are not taken from such a sample.
        """
        return None

    def size(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return how large a scene will be; nothing where its files are missing or damaged."""
        try:
            return self.measure(row, settings)
        except (InputError, OSError, ValueError, KeyError, struct.error):
            return Size(0, 1)

    def input_bytes(self, row: SceneRow, settings: Mapping[str, Any]) -> int:
        """Return how many bytes a scene is made of."""
        return sum(size for _, size, _ in self.stamps(row))

    def made_from(self, row: SceneRow, settings: Mapping[str, Any]) -> Any:
        """Return what tells two inputs of a scene apart, as plain values, in its job."""
        return self.stamps(row)

    @cache  # noqa: B019 - sources live as long as the process
    def stamps(self, row: SceneRow) -> tuple[tuple[str, int, int], ...]:
        """Return path, bytes and time of change (ns) of every file that a scene is made of.

        Raises:
            InputError: if the folder does not exist.
        """
        facts = ((path, os.stat(path)) for path in self.files(row))
        return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in facts)


@cache
def files_below(folder: str) -> tuple[str, ...]:
    """List the files at or below a folder, hidden ones left out, sorted."""
    if os.path.isfile(folder):
        return (folder,)
    paths = (
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    )
    return tuple(sorted(path for path in paths if os.path.isfile(path)))
