"""Series of real dates of public places that benchmarks read from files.

``PLACES`` names them; each is read from a folder of the user's, whose layout is that of the
repository or package that the data are from (docs/protocols.md lists them).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import rasterio
from scipy.io import netcdf_file

from unveil.bands import CORE6, L1C13, NODATA, REFLECTANCE_SCALE
from unveil.classes import SCL_TO_CLASS
from unveil.training.series.read import Series, read_worldcereal

LOOKUP = np.full(256, NODATA, np.uint8)
for _value, _code in SCL_TO_CLASS.items():
    LOOKUP[_value] = _code
ROMANIA = {
    "10m": (("B2", "B3", "B4", "B8"), "sentinel2_cube_subset_romania_10m.nc"),
    "20m": (("B8A", "B11"), "sentinel2_cube_subset_romania_20m.nc"),
}
"""The six core bands; those of 20 m are repeated on the 10 m grid."""
NOWHERE = (0.0, 0.0, 0.0, 0.0)


def read_romania(folder: Path) -> Series:
    """Read ``nrt/data`` of the unpacked package nrt: L2A, 100 x 100 px, 140 dates."""
    stacks = []
    for bands, name in ROMANIA.values():
        with h5py.File(folder / name) as file:
            values = np.stack([file[band][:] for band in bands], axis=1)
            times = 100 // values.shape[-1]
            stacks.append(values.repeat(times, axis=-1).repeat(times, axis=-2))
            if times == 1:
                scl, days = file["SCL"][:], file["time"][:]
    start = dt.date(2015, 8, 1).toordinal()
    bbox = (22.0, 44.0, 28.0, 48.0)
    reflectance = _reflectance(np.concatenate(stacks, axis=1))
    return Series("romania", CORE6, reflectance, LOOKUP[scl], start + days, bbox)


def read_worldcereal_1(folder: Path) -> Series:
    """Read the site 00002806639B424A of WorldCereal: six bands, 64 x 64 px."""
    return read_worldcereal(sorted(folder.glob("S2_*.nc")), name="worldcereal-1")


def read_worldcereal_2(folder: Path) -> Series:
    """Read the site 000028085BF08E7E of WorldCereal: bands of 20 m, none visible."""
    return read_worldcereal(sorted(folder.glob("S2_*.nc")), name="worldcereal-2")


def read_minicube(folder: Path) -> Series:
    """Read a minicube of GreenEarthNet: B02 B03 B04 B8A, 128 x 128 px of 20 m, NBAR."""
    (path,) = folder.glob("*.nc")
    names = ("B02", "B03", "B04", "B8A")
    with h5py.File(path) as file:
        unit = file["time"].attrs["units"].decode()
        start = dt.date.fromisoformat(unit.split()[2]).toordinal()
        scl = _scaled(file["s2_SCL"])
        there = np.isfinite(scl).any(axis=(1, 2))
        stack = np.stack([_scaled(file[f"s2_{name}"])[there] for name in names], axis=1)
        days = start + file["time"][:][there].astype(int)
    classes = LOOKUP[np.nan_to_num(scl[there], nan=0).astype(np.uint8)]
    stack = np.where(stack > 0, stack, np.nan).astype(np.float32)
    return Series(folder.name, names, stack, classes, days, NOWHERE)


def read_antwerp(folder: Path) -> Series:
    """Read the cube of openeo-gfmap near Antwerp: B02 B03 B04 B08, 46 x 52 px."""
    with netcdf_file(folder / "test_optical_cube.nc", mmap=False) as file:
        arrays = {key: values.data for key, values in file.variables.items() if key != "crs"}
        unit = file.variables["t"].units.decode()
    return _gfmap(arrays, unit, "antwerp")


def read_mol(folder: Path) -> Series:
    """Read the winter cube of openeo-gfmap near Mol: B02 B03 B04 B08, 64 x 66 px."""
    with h5py.File(folder / "bap_quintad_cdse.nc") as file:
        arrays = {key: values[:] for key, values in file.items() if values.shape}
        unit = file["t"].attrs["units"].decode()
    return _gfmap(arrays, unit, "mol")


def read_sabina(folder: Path) -> Series:
    """Read patch 0 of ROIs2017_146 of SEN12MS-CR-TS: L1C, thirteen bands, 256 x 256 px.

    It comes without masks: the workflow's default detector, s2cloudless, makes them.
    """
    from unveil.masks.mask_scene import detect_clouds

    stack, classes, days = [], [], []
    for path in sorted(folder.glob("s2_*.tif"), key=lambda path: path.name.split("_")[5]):
        with rasterio.open(path) as image:
            reflectance = _reflectance(image.read())
        found = detect_clouds(reflectance, L1C13)
        stack.append(reflectance[[L1C13.index(band) for band in CORE6]])
        classes.append(found)
        days.append(dt.date.fromisoformat(path.name.split("_")[5]).toordinal())
    series = Series("sabina", CORE6, np.stack(stack), np.stack(classes), np.array(days), NOWHERE)
    return replace(series, level="L1C")


def _gfmap(arrays: dict[str, np.ndarray], unit: str, name: str) -> Series:
    bands = ("B02", "B03", "B04", "B08")
    stack = _reflectance(np.stack([arrays[f"S2-L2A-{band}"] for band in bands], axis=1))
    classes = LOOKUP[np.nan_to_num(arrays["S2-L2A-SCL"].astype(float)).round().astype(np.uint8)]
    days = dt.date.fromisoformat(unit.split()[2]).toordinal() + arrays["t"].astype(int)
    return Series(name, bands, stack, classes, days, NOWHERE)


def _scaled(values: h5py.Dataset) -> np.ndarray:
    stored, facts = values[:], values.attrs
    scaled = stored * float(facts["scale_factor"][0]) + float(facts["add_offset"][0])
    return np.where(stored == facts["_FillValue"][0], np.nan, scaled)


def _reflectance(dn: np.ndarray) -> np.ndarray:
    values = np.asarray(dn, np.float32) / REFLECTANCE_SCALE
    return np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float32)


Reader = Callable[[Path], Series]
PLACES: dict[str, Reader] = {
    "romania": read_romania,
    "worldcereal-1": read_worldcereal_1,
    "worldcereal-2": read_worldcereal_2,
    "hungary": read_minicube,
    "sweden": read_minicube,
    "sabina": read_sabina,
    "antwerp": read_antwerp,
    "mol": read_mol,
}
