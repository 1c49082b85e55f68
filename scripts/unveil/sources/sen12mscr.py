"""Source ``sen12mscr``: patches of SEN12MS-CR in the dataset's own folders.

``PATH/ROIs1970_fall_s2_cloudy/s2_cloudy_139/ROIs1970_fall_s2_cloudy_139_p839.tif`` and
its siblings ``s1`` and ``s2`` (Ebel et al. 2021, IEEE TGRS 59, doi:10.1109/TGRS.2020.3024744):
13 L1C bands as uint16 DN x 10000, and VV, VH sigma0 in dB. The patches carry no date; the
scene table states one. A missing cloud-free patch is a fact, not an error: the scene then
has no reference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import L1C13, REFLECTANCE_SCALE, SAR2
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.raster import Grid
from unveil.sources.base import PATCH_PIXELS, Size, Source, SourceRaster, SourceSeries
from unveil.sources.radiometry import check_backscatter
from unveil.sources.splits import match_patch, split_places, spread
from unveil.stored import read_radar, read_reflectance

PATCH = re.compile(r"(?P<roi>ROIs\d+)_(?P<season>[a-z]+)_(?P<scene>\d+)_(?P<patch>p\d+)$")


class Sen12MsCr(Source):
    """SEN12MS-CR: pairs of a cloudy and a clear patch, with radar."""

    kind = "sen12mscr"
    splits = True

    def files(self, row: SceneRow) -> list[str]:
        """List the images of the patch that are there."""
        found = [path for path in _names(row).values() if os.path.exists(path)]
        if not found:
            self.require_input(row)
        return found

    def patches(self, row: SceneRow) -> list[tuple[str, str]]:
        """List the complete patches of a split that are there, as pairs of name and place.

        Patches without one of cloudy, clear or radar image are left out, as the official loader
        does.

        Raises:
            InputError: for an unknown split.
        """
        found = []
        for group, places in split_places(self.kind, row.split, file=row.path).items():
            for number in places:
                folder = Path(row.path) / f"{group}_s2_cloudy" / f"s2_cloudy_{number}"
                names = [path.stem.replace("_s2_cloudy", "") for path in folder.glob("[!.]*.tif")]
                for name in sorted(names, key=lambda n: int(n.rpartition("_p")[2])):
                    paths = patch_paths(replace(row, name=name))
                    if all(path.exists() for path in paths.values()):
                        found.append((name, f"{group}_{number}"))
        return spread(found, row.n_patches)

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return the size of every patch."""
        return Size(PATCH_PIXELS, 2)

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open one patch, named like ``ROIs1970_fall_139_p839``.

        Raises:
            InputError: for a name of another form, or a missing or damaged cloudy patch.
        """
        paths = patch_paths(row)
        cloudy, clear, sar = paths["s2_cloudy"], paths["s2"], paths["s1"]
        with raster.open_raster(cloudy) as dataset:
            grid = raster.grid_of(dataset)
        return SourceSeries(
            grid=grid,
            place=row.place or (row.name or row.scene).rpartition("_")[0],
            optical={row.target_date: open_optical(cloudy, grid)},
            radar={row.target_date: open_radar(sar, grid)} if sar.exists() else {},
            reference=open_optical(clear, grid) if clear.exists() else None,
            facts={
                "level": "L1C",
                "date_from": "scene table",
                "radar_calibration": "sigma0",
                "licence": "SEN12MS-CR: CC BY 4.0",
                "attribution": "Ebel et al. 2021, modified Copernicus Sentinel data",
            },
        )


def patch_paths(row: SceneRow) -> dict[str, Path]:
    """Return where a patch's cloudy (s2_cloudy), clear (s2) and radar (s1) files belong.

    Raises:
        InputError: if the name is not of the dataset's form.
    """
    return {kind: Path(name) for kind, name in _names(row).items()}


def _names(row: SceneRow) -> dict[str, str]:
    """Name the files as text, as a table may have ten thousand rows."""
    match = match_patch(row, PATCH, like="ROIs1970_fall_139_p839")
    return {kind: _name(row.path, match, kind) for kind in ("s2_cloudy", "s2", "s1")}


def _name(root: str, match: re.Match[str], kind: str) -> str:
    scene, prefix = match["scene"], f"{match['roi']}_{match['season']}_{kind}"
    return os.path.join(root, prefix, f"{kind}_{scene}", f"{prefix}_{scene}_{match['patch']}.tif")


def _check(path: Path, grid: Grid, bands: int) -> None:
    with raster.open_raster(path) as dataset:
        difference = grid.difference(raster.grid_of(dataset))
        if dataset.count != bands or difference:
            raise InputError(
                f"{dataset.count} bands ({bands} expected) {difference}".strip(),
                file=path,
                field="bands" if dataset.count != bands else "grid",
                remedy="use the files of the dataset unchanged",
            )


def open_optical(path: Path, grid: Grid) -> SourceRaster:
    """Open the 13 L1C bands of a patch.

    Raises:
        InputError: if it is missing, damaged or on another grid.
    """
    _check(path, grid, len(L1C13))

    def read(window: Window) -> np.ndarray:
        return read_reflectance(path, window=window, unit=REFLECTANCE_SCALE)

    return SourceRaster(L1C13, read, {"unveil:source": path.name})


def open_radar(path: Path, grid: Grid) -> SourceRaster:
    """Open VV and VH of a patch, dB.

    Raises:
        InputError: if it is missing, damaged, on another grid, or cannot be VV, VH in dB.
    """
    _check(path, grid, len(SAR2))
    check_backscatter(read_radar(path), file=str(path))

    def read(window: Window) -> np.ndarray:
        return read_radar(path, window=window)

    return SourceRaster(SAR2, read, {"unveil:source": path.name})
