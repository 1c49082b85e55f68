"""Small files of public places in the layouts of ``unveil.places.cubes``."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy.io import netcdf_file

SINCE = "days since 2015-08-01 00:00:00"


def write_nrt(folder: Path) -> list[Path]:
    """Two dates: 4 x 4 px of 10 m with SCL, 2 x 2 px of 20 m, in EPSG:3035."""
    for edge, names in ((4, ("B2", "B3", "B4", "B8")), (2, ("B8A", "B11"))):
        with h5py.File(folder / f"{edge}.nc", "w") as file:
            step = 40 / edge
            file["x"] = 5_200_000 + step * (np.arange(edge) + 0.5)
            file["y"] = 2_500_000 - step * (np.arange(edge) + 0.5)
            file["time"] = np.array([0, 5])
            file["time"].attrs["units"] = np.bytes_(SINCE)
            for number, name in enumerate(names, 1):
                file[name] = np.full((2, edge, edge), 1000 * number, np.int16)
            file["SCL"] = np.full((2, edge, edge), 4 if edge == 4 else 9, np.uint8)
    return [folder / "4.nc", folder / "2.nc"]


def write_minicube(folder: Path) -> list[Path]:
    """Three days, on the second no acquisition: 8 x 8 px with scale, offset and fill."""
    with h5py.File(folder / "cube.nc", "w") as file:
        file["lon"], file["lat"] = 22 + 2e-4 * np.arange(8), 47 - 2e-4 * np.arange(8)
        file["time"] = np.arange(3)
        file["time"].attrs["units"] = np.bytes_(SINCE)
        for name in ("SCL", "B02", "B03", "B04", "B8A"):
            stored = np.full((3, 8, 8), 4 if name == "SCL" else 900, np.int16)
            stored[1] = -1
            file[f"s2_{name}"] = stored
            scale = 1.0 if name == "SCL" else 1e-4
            for key, value in (("scale_factor", scale), ("add_offset", 0.0), ("_FillValue", -1)):
                file[f"s2_{name}"].attrs[key] = np.array([value])
    return [folder / "cube.nc"]


def _openeo_arrays() -> dict[str, np.ndarray]:
    bands = {f"S2-L2A-{b}": np.full((2, 6, 8), 800, np.int16) for b in ("B02", "B03", "B04", "B08")}
    scl = {"S2-L2A-SCL": np.full((2, 6, 8), 4, np.int16)}
    axes = {"x": 600_000.0 + 10 * np.arange(8), "y": 5_600_000.0 - 10 * np.arange(6)}
    return bands | scl | axes | {"t": np.array([0, 5], np.int32)}


def write_openeo(folder: Path) -> list[Path]:
    """Two dates of 6 x 8 px in UTM 31N, netCDF 4."""
    with h5py.File(folder / "cube.nc", "w") as file:
        for name, values in _openeo_arrays().items():
            file[name] = values
        file["t"].attrs["units"] = np.bytes_(SINCE)
    return [folder / "cube.nc"]


def write_openeo_classic(folder: Path) -> list[Path]:
    """The same as netCDF 3."""
    arrays = _openeo_arrays()
    with netcdf_file(folder / "cube.nc", "w") as file:
        for name, size in (("t", 2), ("y", 6), ("x", 8)):
            file.createDimension(name, size)
        for name, values in arrays.items():
            axes = ("t", "y", "x") if values.ndim == 3 else (name,)
            file.createVariable(name, values.dtype, axes)[:] = values
        file.variables["t"].units = SINCE
    return [folder / "cube.nc"]
