"""Reading and writing rasters: one place for grids, COGs and atomic writes.

Arrays are ``(B, H, W)``; the vertical axis points south, the pixel origin is the
upper left corner, as in GDAL.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from unveil.bands import REFLECTANCE_SCALE
from unveil.errors import InputError
from unveil.inputs import RASTER_RATIO, reading_input, require_plausible

BLOCK = 512
MAGIC = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
}
"""The formats that are read, by GDAL's driver, and how their files begin."""
LEVELS = {"zstd": 1, "deflate": 6}
"""Higher ones save 5 % of the bytes and take up to five times as long."""
PROBE_BYTES = 8 << 20
"""Bytes that are written to learn why GDAL could not write."""


@dataclass(frozen=True)
class Grid:
    """The pixel grid of a scene.

    Attributes:
        crs: authority code or WKT; empty when the data have no georeference.
        transform: GDAL affine coefficients ``(a, b, c, d, e, f)``.
        height: rows.
        width: columns.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def affine(self) -> Affine:
        """The transform as an affine object."""
        return Affine(*self.transform)

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    def difference(self, other: Grid) -> str:
        """Describe how ``other`` deviates from this grid; empty when they agree.

        Origins and pixel sizes agree when they differ by less than 1 % of a pixel.
        """
        found = []
        if self.crs != other.crs:
            found.append(f"CRS {other.crs or 'none'} instead of {self.crs or 'none'}")
        if self.shape != other.shape:
            found.append(f"shape {other.shape} instead of {self.shape}")
        tolerance = 0.01 * max(abs(self.transform[0]), abs(self.transform[4]))
        if not np.allclose(self.transform, other.transform, rtol=0, atol=tolerance):
            found.append(f"transform {other.transform} instead of {self.transform}")
        return "; ".join(found)

    def windows(self, block: int = BLOCK) -> Iterator[Window]:
        """Yield windows that cover the grid, row by row."""
        for row in range(0, self.height, block):
            for col in range(0, self.width, block):
                yield Window(col, row, min(block, self.width - col), min(block, self.height - row))


def with_halo(window: Window, halo: int, grid: Grid) -> tuple[Window, tuple[slice, slice]]:
    """Return a window grown on each side within a grid, and the window's rows and columns in it."""
    (row, row_end), (col, col_end) = window.toranges()
    top, left = max(0, row - halo), max(0, col - halo)
    bottom, right = min(grid.height, row_end + halo), min(grid.width, col_end + halo)
    inner = (slice(row - top, row_end - top), slice(col - left, col_end - left))
    return Window(left, top, right - left, bottom - top), inner


def grid_of(dataset: rasterio.DatasetReader) -> Grid:
    """Return the grid of an open raster."""
    return Grid(_crs_code(dataset.crs), tuple(dataset.transform)[:6], dataset.height, dataset.width)


def _crs_code(crs: CRS | None) -> str:
    """Name a CRS by EPSG code; PROJ alone may prefer a national registry's twin."""
    if not crs:
        return ""
    code = crs.to_epsg()
    if code:
        return f"EPSG:{code}"
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.to_wkt()


@contextlib.contextmanager
def open_raster(path: str | Path) -> Iterator[rasterio.DatasetReader]:
    """Open a raster for reading, with errors that name the file and the remedy.

    The driver follows from the first bytes: other formats of GDAL, such as a VRT under the
    name of a GeoTIFF, can name further files and addresses, which would be read.

    Raises:
        InputError: if the file is missing, empty, truncated, no GeoTIFF or JPEG 2000, or
            declares far more pixels than it can hold.
    """
    path = Path(path)
    remedy = "the file is truncated or no GeoTIFF; copy or download it again"
    with reading_input(path, "a raster", remedy=remedy):
        dataset = rasterio.open(path, driver=_driver(path))
    with dataset:
        item = max(np.dtype(name).itemsize for name in dataset.dtypes)
        declared = dataset.count * dataset.height * dataset.width * item
        require_plausible(declared, path, ratio=RASTER_RATIO)
        try:
            yield dataset
        except (RasterioError, CPLE_BaseError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot be read as a raster ({error})", file=path, remedy=remedy
            ) from error


def _driver(path: Path) -> str:
    with open(path, "rb") as stream:
        head = stream.read(12)
    for driver, marks in MAGIC.items():
        if head.startswith(marks):
            return driver
    raise ValueError(f"it begins with {head[:8]!r}")


def read(path: str | Path, *, window: Window | None = None) -> np.ndarray:
    """Read all bands of a raster, ``(B, H, W)`` in the file's own dtype.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with open_raster(path) as dataset:
        return dataset.read(window=window)


def read_decimated(path: str | Path, *, size: int = 512) -> np.ndarray:
    """Read all bands at no more than ``size`` pixels an edge, nearest neighbour."""
    with open_raster(path) as dataset:
        step = max(1, -(-max(dataset.shape) // size))
        shape = (dataset.count, -(-dataset.height // step), -(-dataset.width // step))
        return dataset.read(out_shape=shape)


def to_reflectance(dn: np.ndarray) -> np.ndarray:
    """Return float32 reflectance with NaN where the DN is 0 (nodata)."""
    reflectance = dn.astype(np.float32) / np.float32(REFLECTANCE_SCALE)
    reflectance[dn == 0] = np.nan
    return reflectance


def to_dn(reflectance: np.ndarray) -> np.ndarray:
    """Return uint16 DN x 10000; NaN becomes 0 (nodata), valid values at least 1."""
    valid = np.isfinite(reflectance)
    scaled = np.rint(np.where(valid, reflectance, 0).astype(np.float64) * REFLECTANCE_SCALE)
    return np.where(valid, np.clip(scaled, 1, 65_535), 0).astype(np.uint16)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, renamed to it when the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.stem}-", suffix=f".part{path.suffix}"
    )
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def discard_leftovers(path: str | Path) -> None:
    """Remove what jobs that were killed while they wrote ``path`` have left beside it."""
    path = Path(path)
    name = re.compile(rf"\.{re.escape(path.stem)}-[a-z0-9_]{{8}}\.(cog|part(\..*)?)")
    for left in path.parent.glob(f".{glob.escape(path.stem)}-*"):
        if name.fullmatch(left.name):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)


@contextlib.contextmanager
def _telling_disk_trouble(path: Path) -> Iterator[None]:
    """Turn GDAL's "write failed" into the error of the file system behind it.

    Raises:
        OSError: with the number and the reason (disk full, quota, read-only ...).
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError):
        try:
            with tempfile.TemporaryFile(dir=path.parent) as probe:
                probe.write(bytes(PROBE_BYTES))
                probe.flush()
        except OSError as trouble:
            raise OSError(trouble.errno, trouble.strerror, str(path)) from None
        raise


def _require_whole(path: Path) -> None:
    """Read the last block of a COG: it lies last in the file, and GDAL closes files silently.

    Raises:
        RasterioError: if it did not get to the disk.
    """
    with rasterio.open(path) as dataset:
        row, col = (max(0, (side - 1) // BLOCK * BLOCK) for side in dataset.shape)
        dataset.read(window=Window(col, row, dataset.width - col, dataset.height - row))


@contextlib.contextmanager
def cog_writer(
    path: str | Path,
    grid: Grid,
    *,
    dtype: str,
    descriptions: Sequence[str],
    nodata: float | None,
    tags: dict[str, str] | None = None,
    overviews: Resampling = Resampling.average,
    compress: Literal["zstd", "deflate"] = "zstd",
) -> Iterator[rasterio.io.DatasetWriter]:
    """Write a Cloud-Optimised GeoTIFF window by window; renamed into place at the end.

    Args:
        path: the final file.
        grid: its grid.
        dtype: numpy dtype name.
        descriptions: one name a band (ESA names, ``VV``, ``CLASS`` ...).
        nodata: the nodata value, or None.
        tags: dataset metadata items.
        overviews: resampling of the overviews.
        compress: ``deflate`` for what other software is to read; it takes five times as long as
            ``zstd``, whose files are about as large.

    Raises:
        OSError: if the disk is full or cannot be written; ``path`` is as it was.
    """
    path = Path(path)
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": len(descriptions),
        "dtype": dtype,
        "nodata": nodata,
        "transform": grid.affine,
        "crs": grid.crs or None,
        "compress": "zstd",
        "zstd_level": 1,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "bigtiff": "if_safer",
    }
    with (
        replacing(path) as final,
        tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.stem}-", suffix=".cog"
        ) as folder,
        _telling_disk_trouble(path),
    ):
        scratch = Path(folder) / "scratch.tif"
        with rasterio.open(scratch, "w", **profile) as writer:
            for position, name in enumerate(descriptions, 1):
                writer.set_band_description(position, name)
            writer.update_tags(**(tags or {}))
            yield writer
        rasterio.shutil.copy(
            scratch,
            final,
            driver="COG",
            compress=compress,
            predictor="yes",
            level=LEVELS[compress],
            blocksize=BLOCK,
            overview_resampling=overviews.name,
            num_threads="all_cpus",
        )
        _require_whole(final)


def write_cog(
    path: str | Path,
    data: np.ndarray,
    grid: Grid,
    *,
    descriptions: Sequence[str],
    nodata: float | None,
    tags: dict[str, str] | None = None,
    overviews: Resampling = Resampling.average,
) -> None:
    """Write a ``(B, H, W)`` array as a Cloud-Optimised GeoTIFF, atomically."""
    with cog_writer(
        path,
        grid,
        dtype=data.dtype.name,
        descriptions=descriptions,
        nodata=nodata,
        tags=tags,
        overviews=overviews,
    ) as writer:
        writer.write(data)


def sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
