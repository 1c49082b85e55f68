"""Source ``npz``: the layout of the original CloudlessEO comparison.

::

    PATH/cloudy/NAME.npz      key arr_0, (13, H, W), DN x 10000 in the order B01 ... B12
    PATH/s1/NAME.npz          key arr_0, (2, H, W), optional
    PATH/reference/NAME.npz   as cloudy; optional, Unveil's addition (the original has none)

The files state neither date, grid, polarisation nor unit: the scene table and the
``sources`` section of the config do, and what cannot be right is refused.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unveil import stored
from unveil.bands import L1C13, SAR2
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.guarded import read_npz
from unveil.raster import Grid
from unveil.sources.base import Size, Source, SourceRaster, SourceSeries, from_array
from unveil.sources.radiometry import check_backscatter, to_decibel

FILL_BELOW = -900.0
"""Linear power, or dB, below which a number is fill: -999, -9999 ..."""


class Npz(Source):
    """Samples of the original comparison, an array a file."""

    kind = "npz"

    def files(self, row: SceneRow) -> list[str]:
        """List the arrays of the sample that are there."""
        self.require_input(row)
        return [str(path) for path in _paths(row).values() if path.exists()]

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Read the shape in the head of the cloudy array."""
        return Size(_pixels(_paths(row)["cloudy"]), 2)

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open one sample of the original benchmark's layout.

        Raises:
            InputError: for a missing or damaged file, a wrong shape, or radar that cannot be
                in the stated order and unit.
        """
        paths = _paths(row)
        cloudy = _optical(paths["cloudy"], settings)
        shape = cloudy.shape[1:]
        radar, reference = {}, None
        if paths["s1"].exists():
            radar = {row.target_date: _radar(paths["s1"], shape, settings)}
        if paths["reference"].exists():
            truth = _optical(paths["reference"], settings, shape=shape)
            reference = _raster(truth, paths["reference"])
        return SourceSeries(
            grid=Grid("", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), *shape),
            place=row.place or paths["cloudy"].stem,
            optical={row.target_date: _raster(cloudy, paths["cloudy"])},
            radar=radar,
            reference=reference,
            facts={
                "level": "L1C",
                "date_from": "scene table",
                "radar_calibration": settings["sar_calibration"],
                "licence": "as delivered; the files state none",
            },
        )


def _paths(row: SceneRow) -> dict[str, Path]:
    name = f"{row.name or row.scene}.npz"
    return {part: Path(row.path) / part / name for part in ("cloudy", "s1", "reference")}


def load_array(path: Path, *, bands: int) -> np.ndarray:
    """Read ``arr_0`` of an .npz file as ``(bands, H, W)`` in its own dtype, without pickle.

    Raises:
        InputError: for a missing or damaged file, another key or shape.
    """
    arrays = read_npz(path, kind=".npz", remedy="copy or download it again")
    if "arr_0" not in arrays:
        raise InputError(f"keys {list(arrays)}", file=path, field="arr_0", remedy="save one array")
    data = arrays["arr_0"]
    if data.dtype.kind not in "fiu":
        raise InputError(
            f"holds {data.dtype} instead of numbers", file=path, field="arr_0", remedy="save DN"
        )
    if data.ndim != 3 or data.shape[0] != bands or 0 in data.shape:
        raise InputError(
            f"shape {data.shape} instead of ({bands}, H, W)",
            file=path,
            field="arr_0",
            remedy="put the bands first",
        )
    return data


def _optical(
    path: Path, settings: Mapping[str, Any], shape: tuple[int, int] | None = None
) -> np.ndarray:
    data = load_array(path, bands=len(L1C13))
    _same_shape(data, shape, path)
    how = stored.plainly(len(L1C13), quantification=settings["optical_scale"])
    return stored.read_dn(data, how, file=path)


def _raster(dn: np.ndarray, path: Path) -> SourceRaster:
    return from_array(dn, L1C13, **{"unveil:source": path.name})


def _radar(path: Path, shape: tuple[int, int], settings: Mapping[str, Any]) -> SourceRaster:
    data = load_array(path, bands=len(SAR2))
    _same_shape(data, shape, path)
    data = data[[list(settings["sar_order"]).index(name) for name in SAR2]].astype(np.float32)
    if settings["sar_unit"] == "linear":
        data = np.where(data > FILL_BELOW, data, np.nan)
        if (data < 0).any():
            raise InputError(
                f"backscatter down to {np.nanmin(data):.2f} cannot be linear power",
                file=path,
                field="sources.sar_unit",
                remedy="set sar_unit: dB in the config",
            )
        data = to_decibel(data)
    data = stored.to_decibel_or_nan(data)
    check_backscatter(data, file=str(path))
    return from_array(data, SAR2, **{"unveil:source": path.name})


def _same_shape(data: np.ndarray, shape: tuple[int, int] | None, path: Path) -> None:
    if shape and data.shape[1:] != shape:
        raise InputError(
            f"{data.shape[1:]} pixels, the optical image has {shape}",
            file=path,
            field="arr_0",
            remedy="deliver both on one grid",
        )


def _pixels(path: Path) -> int:
    with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as stream:
        form = np.lib.format
        old = form.read_magic(stream) == (1, 0)
        read = form.read_array_header_1_0 if old else form.read_array_header_2_0
        shape = read(stream)[0]
    return int(np.prod(shape[-2:]))
