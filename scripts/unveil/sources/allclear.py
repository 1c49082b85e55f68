"""Source ``allclear``: samples of AllClear in the dataset's own folders.

::

    PATH/metadata/datasets/test_tx3_s2-s1_100pct_1proi.json     samples of a split
    PATH/data/roi123/2022_1/s2_toa/roi123_s2_toa_2022_1_6_median.tif
    PATH/data/roi123/2022_1/cld_shdw/roi123_cld_shdw_2022_1_6_median.tif
    PATH/data/roi123/2022_1/s1/roi123_s1_2022_1_5_median.tif

(Zhou et al. 2024, NeurIPS Datasets and Benchmarks, arXiv:2410.23891; layout as in
github.com/Zhou-Hangyu/allclear). A sample has frames ``s2_toa`` (13 L1C bands, DN x 10000, NaN
beyond the image), radar ``s1`` (VV, VH in dB) and a clear image ``target``, which is the truth
here; the frame nearest to it in time is the one to clear, the others are context. Cloud is band
2 and shadow band 5 of ``cld_shdw``. Images reach a little beyond 256 pixels, and everyone uses
their middle. The files name the paths of the machine they were made on: only what
follows ``roi...`` counts.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import rasterio.windows
from rasterio.windows import Window

from unveil import raster, stored
from unveil.bands import CLEAR, CLOUD, L1C13, NODATA, REFLECTANCE_SCALE, SAR2, SHADOW
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.guarded import NO_JSON
from unveil.raster import Grid
from unveil.sources import radiometry
from unveil.sources.base import (
    PATCH_PIXELS,
    Size,
    Source,
    SourceRaster,
    SourceSeries,
    of_radar,
    open_dates,
)
from unveil.sources.radiometry import Offset
from unveil.sources.selection import days_between
from unveil.sources.splits import spread

LOG = logging.getLogger(__name__)

SIZE = 256
CLOUD_BAND, SHADOW_BAND, MASK_BANDS = 2, 5, 5
PLACE = re.compile(r"roi\d+")
FOLDERS = ("data", ".", "dataset")


class AllClear(Source):
    """AllClear: samples of several cloudy dates and a clear one; the dates are its own."""

    kind = "allclear"
    required = {
        "split": "name a dataset file of its metadata, e.g. test_tx3_s2-s1_100pct_1proi",
    }
    target_auto = ("paired", "none")
    splits = True

    def files(self, row: SceneRow) -> list[str]:
        """List the files of the sample that are there."""
        self.require_input(row)
        sample = _sample(row)
        entries = [e for part in ("s2_toa", "target", "s1") for e in _dated(sample, part, row)]
        paths = [_find(row, path) for _, path in entries]
        masks = [_mask_path(path) for path in paths]
        return sorted({str(path) for path in (*paths, *masks) if path.exists()})

    def patches(self, row: SceneRow) -> list[tuple[str, str]]:
        """List the samples of a split that are there, as pairs of sample and place.

        Raises:
            InputError: for an unknown split.
        """
        known = []
        for key, sample in _samples(_dataset_file(row)).items():
            place = _place(sample, row)
            if any((Path(row.path) / folder / place).is_dir() for folder in FOLDERS):
                known.append((key, place))
        return spread(known, row.n_patches)

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return the size of every sample, and the frames that are asked for."""
        return Size(PATCH_PIXELS, row.n_context + 1)

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open one sample; the dates of target and truth are the dataset's own.

        Args:
            row: row of the scene table: ``split`` names the dataset file, ``name`` the sample.
            settings: not used.

        Raises:
            InputError: for an unknown split or sample, or missing or damaged files.
        """
        sample = _sample(row)
        place = _place(sample, row)
        frames = {date: _find(row, path) for date, path in _dated(sample, "s2_toa", row)}
        ((truth, truth_path),) = _dated(sample, "target", row)[:1] or [("", "")]
        inputs = [date for date in frames if date != truth]
        if not inputs or not truth:
            raise InputError(
                "the sample has no frame to clear" if truth else "the sample has no target",
                file=row.path,
                field=f"scene {row.scene}: {row.name}",
                remedy="use a dataset file with targets and frames of other dates",
            )
        nearest = min(inputs, key=lambda date: (days_between(date, truth), date))
        frames[truth] = _find(row, truth_path)
        grid = _grid(frames[truth])
        optical, bad = open_dates(
            dict(sorted(frames.items())), lambda _, path: _optical(path, grid)
        )
        heard = {date: _find(row, path) for date, path in sorted(_dated(sample, "s1", row))}
        radar, deaf = open_dates(heard, lambda _, path: _radar(path, grid))
        return SourceSeries(
            grid=grid,
            place=row.place or place,
            optical=optical,
            masks={
                date: _mask(mask, grid)
                for date in optical
                if (mask := _mask_path(frames[date])).exists()
            },
            radar=radar,
            facts={
                "level": "L1C",
                "radar_calibration": "sigma0",
                "licence": "AllClear: see allclear.cs.cornell.edu",
                "attribution": "Zhou et al. 2024, modified Copernicus Sentinel data",
            },
            target_date=nearest if row.target_date == "auto" else row.target_date,
            reference_date=truth,
            left_out=bad | {of_radar(date): why for date, why in deaf.items()},
        )


# --- metadata -------------------------------------------------------------------------------


def _dataset_file(row: SceneRow) -> Path:
    """Find the dataset file of a split: by its name, or the only one of ``test``, ``val`` ..."""
    folder = Path(row.path) / "metadata" / "datasets"
    names = sorted(path.stem for path in folder.glob("[!.]*.json"))
    fit = [name for name in names if name == row.split]
    fit = fit or [name for name in names if name.startswith(f"{row.split}_")]
    if len(fit) != 1:
        raise InputError(
            f"{row.split!r} names {len(fit)} dataset files",
            file=folder,
            field=f"scene {row.scene}: split",
            remedy=f"use one of {', '.join(names)}" if names else "download the metadata",
        )
    return folder / f"{fit[0]}.json"


@lru_cache(maxsize=2)
def _samples(path: Path) -> dict[str, dict[str, Any]]:
    try:
        samples = json.loads(path.read_text(encoding="utf-8"))
    except NO_JSON as error:
        raise InputError(
            f"not JSON ({error})", file=path, remedy="download the metadata again"
        ) from error
    if not isinstance(samples, dict):
        raise InputError("no samples", file=path, remedy="download the metadata again")
    return samples


def _sample(row: SceneRow) -> dict[str, Any]:
    file = _dataset_file(row)
    sample = _samples(file).get(row.name)
    if not isinstance(sample, dict):
        raise InputError(
            f"{row.name!r} is no sample",
            file=file,
            field=f"scene {row.scene}: name",
            remedy="use a key of the dataset file",
        )
    return sample


def _place(sample: dict[str, Any], row: SceneRow) -> str:
    place = sample.get("roi")
    place = place[0] if isinstance(place, list) and place else place
    if not isinstance(place, str) or not PLACE.fullmatch(place):
        raise InputError(
            f"roi is {sample.get('roi')!r}",
            file=_dataset_file(row),
            field="roi",
            remedy="download the metadata again",
        )
    return place


def _dated(sample: dict[str, Any], part: str, row: SceneRow) -> list[tuple[str, str]]:
    """Return date and path of a part's entries, the first of a date only."""
    found: dict[str, str] = {}
    try:
        for time, path in sample.get(part, []):
            found.setdefault(str(time)[:10], str(path))
        for date in found:
            days_between(date, date)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{part} is no list of time and path ({error})",
            file=_dataset_file(row),
            field=part,
            remedy="download the metadata again",
        ) from error
    return sorted(found.items())


def _find(row: SceneRow, path: str) -> Path:
    """Return where a file lies here: what follows ``roi...``, below PATH or its ``data``."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    start = next((i for i, part in enumerate(parts) if PLACE.fullmatch(part)), None)
    if start is None or ".." in parts[start:]:
        raise InputError(
            f"{path!r} names no place",
            file=_dataset_file(row),
            field="path",
            remedy="download the metadata again",
        )
    candidates = [Path(row.path, folder, *parts[start:]) for folder in FOLDERS]
    return next((c for c in candidates if c.exists()), candidates[0])


# --- images ---------------------------------------------------------------------------------


def _mask_path(path: Path) -> Path:
    return path.parents[1] / "cld_shdw" / path.name.replace("s2_toa", "cld_shdw")


def _middle(height: int, width: int, path: Path) -> Window:
    if min(height, width) < SIZE:
        raise InputError(
            f"{height} x {width} pixels, {SIZE} wanted",
            file=path,
            remedy="download the place again",
        )
    return Window(width // 2 - SIZE // 2, height // 2 - SIZE // 2, SIZE, SIZE)


def _grid(path: Path) -> Grid:
    with raster.open_raster(path) as dataset:
        own = raster.grid_of(dataset)
    window = _middle(*own.shape, path)
    moved = rasterio.windows.transform(window, own.affine)
    return Grid(own.crs, tuple(moved)[:6], SIZE, SIZE)


def _in_file(path: Path, grid: Grid, bands: int, window: Window) -> Window:
    """Return where a window of the middle of a file lies in it."""
    with raster.open_raster(path) as dataset:
        crs, (height, width), count = raster.grid_of(dataset).crs, dataset.shape, dataset.count
    if crs != grid.crs or count != bands:
        raise InputError(
            f"{count} bands in {crs or 'no CRS'}, {bands} in {grid.crs} wanted",
            file=path,
            field="bands" if count != bands else "grid",
            remedy="use the files of the dataset unchanged",
        )
    middle = _middle(height, width, path)
    return Window(
        middle.col_off + window.col_off,
        middle.row_off + window.row_off,
        window.width,
        window.height,
    )


def _optical(path: Path, grid: Grid) -> SourceRaster:
    whole = Window(0, 0, grid.width, grid.height)

    def read(window: Window) -> np.ndarray:
        inner = _in_file(path, grid, len(L1C13), window)
        return stored.read_reflectance(path, window=inner, unit=REFLECTANCE_SCALE)

    offset = radiometry.cross_check(
        Offset(0, "AllClear, as published"), radiometry.dark_levels(read(whole), L1C13)
    )
    for warning in offset.warnings:
        LOG.warning("%s: %s", path.name, warning)
    return SourceRaster(L1C13, read, {"unveil:source": path.name, **offset.facts()})


def _mask(path: Path, grid: Grid) -> SourceRaster:
    def read(window: Window) -> np.ndarray:
        data = raster.read(path, window=_in_file(path, grid, MASK_BANDS, window))
        cloud, shadow = data[CLOUD_BAND - 1], data[SHADOW_BAND - 1]
        classes = np.where(cloud > 0, CLOUD, np.where(shadow > 0, SHADOW, CLEAR))
        unknown = ~((cloud >= 0) & (shadow >= 0))  # NaN and negative fill
        return np.where(unknown, NODATA, classes)[None].astype(np.uint8)

    return SourceRaster(("CLASS",), read, {"unveil:source": path.name})


def _radar(path: Path, grid: Grid) -> SourceRaster:
    def read(window: Window) -> np.ndarray:
        return stored.read_radar(path, window=_in_file(path, grid, len(SAR2), window))

    radiometry.check_backscatter(read(Window(0, 0, grid.width, grid.height)), file=str(path))
    return SourceRaster(SAR2, read, {"unveil:source": path.name})
