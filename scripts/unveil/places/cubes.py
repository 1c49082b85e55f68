"""Layouts of series in netCDF cubes or one image a date: nrt, minicubes, openEO, SEN12MS-CR-TS."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from rasterio.warp import transform_bounds
from scipy.io import netcdf_file

from unveil import raster
from unveil.bands import CORE6, L1C13, NODATA, REFLECTANCE_SCALE
from unveil.errors import InputError
from unveil.guarded import ARRAYS_RATIO, reading_input, require_plausible
from unveil.hdf5 import open_hdf5
from unveil.places.layouts import classes_of_scl
from unveil.places.series import Series

REMEDY = "fetch it again"
NRT_NAMES = {"B02": "B2", "B03": "B3", "B04": "B4", "B08": "B8", "B8A": "B8A", "B11": "B11"}
"""Bands by ESA's name, and as the package nrt calls them."""
MINICUBE_BANDS = ("B02", "B03", "B04", "B8A")
OPENEO_BANDS = ("B02", "B03", "B04", "B08")


def read_nrt(paths: Sequence[Path], *, name: str) -> Series:
    """Read the Romanian cubes of the package nrt: L2A, 100 x 100 px of 10 m, 140 dates.

    Args:
        paths: the cube of 10 m with SCL, and that of 20 m, whose pixels are repeated.
        name: id of the series.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    found: dict[str, np.ndarray] = {}
    for path in paths:
        with reading_input(path, "a cube of nrt", remedy=REMEDY), _open_cube(path) as file:
            found |= {key: file[key][:] for key in NRT_NAMES.values() if key in file}
            if "B2" in file:  # the coarser cube has a scene classification, too
                found["SCL"] = file["SCL"][:]
                days = _days(file["time"])
                box = _bbox(file["x"][:], file["y"][:], "EPSG:3035")
    with reading_input(paths[0].parent, "cubes of nrt", remedy=REMEDY):
        edge = found["B2"].shape[-1]
        stack = np.stack([_repeated(found[NRT_NAMES[band]], edge) for band in CORE6], axis=1)
        return Series(name, CORE6, _reflectance(stack), classes_of_scl(found["SCL"]), days, box)


def read_minicube(paths: Sequence[Path], *, name: str) -> Series:
    """Read a minicube of GreenEarthNet: B02 B03 B04 B8A, 128 x 128 px of 20 m, L2A as NBAR.

    Time is daily; there is a date where the scene classification has one.

    Raises:
        InputError: if the file is missing or not of that layout.
    """
    (path,) = paths
    with reading_input(path, "a minicube", remedy=REMEDY), _open_cube(path) as file:
        scl = _scaled(file["s2_SCL"])
        there = np.isfinite(scl).any(axis=(1, 2))
        stack = np.stack([_scaled(file[f"s2_{band}"])[there] for band in MINICUBE_BANDS], axis=1)
        days = _days(file["time"])[there]
        box = _bbox(file["lon"][:], file["lat"][:], "EPSG:4326")
        classes = classes_of_scl(np.nan_to_num(scl[there], nan=0).astype(np.uint8))
    stack = np.where(stack > 0, stack, np.nan).astype(np.float32)
    return Series(name, MINICUBE_BANDS, stack, classes, days, box)


def read_openeo(paths: Sequence[Path], *, name: str) -> Series:
    """Read a cube of openeo-gfmap: B02 B03 B04 B08 and SCL in UTM 31N, netCDF 4 or 3.

    Raises:
        InputError: if the file is missing or not of that layout.
    """
    (path,) = paths
    with reading_input(path, "a cube of openEO", remedy=REMEDY):
        arrays, unit = _arrays_of(path)
        bands = [arrays[f"S2-L2A-{band}"] for band in OPENEO_BANDS]
        scl = np.nan_to_num(arrays["S2-L2A-SCL"].astype(float)).round().astype(np.uint8)
        return Series(
            name,
            OPENEO_BANDS,
            _reflectance(np.stack(bands, axis=1)),
            classes_of_scl(scl),
            _first_day(unit) + arrays["t"].astype(int),
            _bbox(arrays["x"], arrays["y"], "EPSG:32631"),
        )


def read_sen12mscrts(paths: Sequence[Path], *, name: str) -> Series:
    """Read the images of one patch of SEN12MS-CR-TS, a date in each name: L1C, thirteen bands.

    They come without masks: every class is nodata, until a detector has judged them.

    Raises:
        InputError: if a file is missing or not of that layout.
    """
    images, days = [], []
    for path in sorted(paths, key=_date_in):
        with reading_input(path, "an image of SEN12MS-CR-TS", remedy=REMEDY):
            with raster.open_raster(path) as dataset:
                box = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
                values = dataset.read()
            if len(values) != len(L1C13):
                raise InputError(f"{len(values)} bands instead of 13", file=path, remedy=REMEDY)
            images.append(_reflectance(values))
            days.append(dt.date.fromisoformat(_date_in(path)).toordinal())
    unknown = np.full((len(images), *images[0].shape[1:]), NODATA, np.uint8)
    stack = np.stack(images)
    return Series(name, L1C13, stack, unknown, np.array(days), tuple(box), level="L1C")


def _date_in(path: Path) -> str:
    return path.name.split("_")[5]


@contextlib.contextmanager
def _open_cube(path: Path) -> Iterator[h5py.File]:
    with open_hdf5(path) as file:
        sizes = [v.size * v.dtype.itemsize for v in file.values() if isinstance(v, h5py.Dataset)]
        require_plausible(sum(sizes), path, ratio=ARRAYS_RATIO)
        yield file


def _arrays_of(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Return the variables of a cube, and the unit of its dates."""
    with open(path, "rb") as stream:
        classic = stream.read(3) == b"CDF"
    if classic:
        with netcdf_file(path, mmap=False) as file:
            arrays = {k: v.data.copy() for k, v in file.variables.items() if v.data.shape}
            return arrays, file.variables["t"].units.decode()
    with _open_cube(path) as file:
        return {k: v[:] for k, v in file.items() if v.shape}, file["t"].attrs["units"].decode()


def _days(time: h5py.Dataset) -> np.ndarray:
    """Return the days of "days since" as proleptic ordinals."""
    return _first_day(time.attrs["units"].decode()) + time[:].astype(int)


def _first_day(unit: str) -> int:
    return dt.date.fromisoformat(unit.split("since ")[1][:10]).toordinal()


def _bbox(x: np.ndarray, y: np.ndarray, crs: str) -> tuple[float, float, float, float]:
    """Return west, south, east, north in degrees, from the centres of pixels."""
    across, up = (abs(float(centres[1] - centres[0])) / 2 for centres in (x, y))
    bounds = (x.min() - across, y.min() - up, x.max() + across, y.max() + up)
    return tuple(transform_bounds(crs, "EPSG:4326", *bounds))


def _repeated(values: np.ndarray, edge: int) -> np.ndarray:
    times = edge // values.shape[-1]
    return values.repeat(times, axis=-1).repeat(times, axis=-2)


def _scaled(values: h5py.Dataset) -> np.ndarray:
    stored, facts = values[:], values.attrs
    scaled = stored * float(facts["scale_factor"][0]) + float(facts["add_offset"][0])
    return np.where(stored == facts["_FillValue"][0], np.nan, scaled)


def _reflectance(dn: np.ndarray) -> np.ndarray:
    values = np.asarray(dn, np.float32) / REFLECTANCE_SCALE
    return np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float32)
