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
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.warp import reproject, transform
from rasterio.windows import Window

from unveil.bands import REFLECTANCE_SCALE
from unveil.errors import InputError
from unveil.guarded import RASTER_RATIO, reading_input, require_plausible

BLOCK = 512
MAGIC = {
    "GTiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "JP2OpenJPEG": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
}
"""The formats that are read, by GDAL's driver, and how their files begin."""
IN_ZIP = re.compile(r"/vsizip/\{(?P<archive>.*?)\}/(?P<member>[^}]*)", re.DOTALL)
HEAD_BYTES = 12
WORLD_FILES = (".tfw", ".tifw", ".tiffw", ".wld", ".j2w", ".tab")
MOST_SIDE_BYTES = 1 << 20
MOST_BLOCK_BYTES = 2**30
"""A block is read as a whole; an untiled image of a whole tile has 241 MB."""
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

    def with_halo(self, window: Window, halo: int) -> Window:
        """Return a window grown by ``halo`` pixels on each side, as far as the grid goes."""
        (top, bottom), (left, right) = window.toranges()
        top, left = max(0, top - halo), max(0, left - halo)
        bottom, right = min(self.height, bottom + halo), min(self.width, right + halo)
        return Window(left, top, right - left, bottom - top)


def within(window: Window, outer: Window) -> tuple[slice, slice]:
    """Return the rows and columns of a window in an array of a larger one."""
    rows, cols = window.toslices()
    (top, _), (left, _) = outer.toranges()
    return slice(rows.start - top, rows.stop - top), slice(cols.start - left, cols.stop - left)


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

    Only the file itself is read: neither files beside it nor others that it names.

    Raises:
        InputError: if the file is missing, empty, truncated, no GeoTIFF or JPEG 2000, names
            other files, or declares far more pixels than it can hold.
    """
    remedy = "the file is truncated or no GeoTIFF; copy or download it again"
    with reading_input(path, "a raster", remedy=remedy):
        dataset = open_dataset(path)
    with dataset:
        try:
            yield dataset
        except (RasterioError, CPLE_BaseError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot be read as a raster ({error})", file=path, remedy=remedy
            ) from error


def open_dataset(path: str | Path) -> rasterio.DatasetReader:
    """Open a local raster, or one in a zip archive by :func:`name_in_zip`, until it is closed.

    Raises:
        InputError: if it names other files, keeps its place in one, or declares far more pixels
            than it can hold.
        ValueError: if its first bytes are of no format that is read.
        OSError: if it cannot be read.
    """
    head, size = _head(str(path))
    dataset = open_alone(str(path), head=head, size=size, file=path)
    try:
        _require_own_place(dataset, Path(path))
    except InputError:
        dataset.close()
        raise
    return dataset


def open_alone(
    name: str,
    *,
    head: bytes,
    size: int,
    file: str | Path,
    level: int | None = None,
    opener: Callable[..., Any] | None = None,
) -> rasterio.DatasetReader:
    """Open what lies under a name of GDAL, and nothing else.

    The driver follows from the first bytes: other formats of GDAL, such as a VRT under the
    name of a GeoTIFF, can name further files and addresses, which would be read. The settings
    in :mod:`unveil.gdal` keep GDAL from files beside it.

    Args:
        name: the name.
        head: the first bytes.
        size: bytes of the file.
        file: what errors call it.
        level: overview to open instead of the full resolution.
        opener: opens the name for GDAL (see :func:`rasterio.open`).

    Raises:
        InputError: if the raster names other files, or declares far more than it can hold.
        ValueError: if the first bytes are of no format that is read.
        OSError: if it cannot be opened.
    """
    driver = _driver(head)
    dataset = rasterio.open(name, driver=driver, opener=opener)
    try:
        _require_alone(dataset, file)
        _require_bounded(dataset, size, file)
    except InputError:
        dataset.close()
        raise
    if level is None:
        return dataset
    dataset.close()
    return rasterio.open(name, driver=driver, opener=opener, overview_level=level)


def name_in_zip(archive: Path, member: str) -> str:
    """Return GDAL's name of a file in a zip archive.

    Raises:
        InputError: if the name of the archive has braces that GDAL cannot pair.
    """
    path = str(archive.resolve())
    depth = [path[:end].count("{") - path[:end].count("}") for end in range(len(path) + 1)]
    if min(depth) < 0 or depth[-1]:
        raise InputError(
            "its path has a brace without its partner", file=path, remedy="rename it or its folder"
        )
    return f"/vsizip/{{{path}}}/{member}"


def _head(name: str) -> tuple[bytes, int]:
    """Return the first bytes and the size of a file, on disk or in a zip archive."""
    inside = IN_ZIP.fullmatch(name)
    if inside:
        with zipfile.ZipFile(inside["archive"]) as archive:
            with archive.open(inside["member"]) as stream:
                return stream.read(HEAD_BYTES), archive.getinfo(inside["member"]).file_size
    with open(name, "rb") as stream:
        return stream.read(HEAD_BYTES), os.fstat(stream.fileno()).st_size


def _driver(head: bytes) -> str:
    for driver, marks in MAGIC.items():
        if head.startswith(marks):
            return driver
    raise ValueError(f"it begins with {head[:8]!r}")


def _require_alone(dataset: rasterio.DatasetReader, file: str | Path) -> None:
    """Refuse a raster whose overviews are another file, before GDAL looks for them."""
    other = dataset.tags(ns="OVERVIEWS")
    if other:
        raise InputError(
            f"it takes overviews from another file ({', '.join(other.values())})",
            file=file,
            remedy="leave it out, or copy its pixels: gdal_translate -co COPY_SRC_MDD=NO",
        )


def _require_bounded(dataset: rasterio.DatasetReader, size: int, file: str | Path) -> None:
    item = max(np.dtype(name).itemsize for name in dataset.dtypes)
    declared = dataset.count * dataset.height * dataset.width * item
    require_plausible(declared, file, ratio=RASTER_RATIO, size=size)
    block = item * max(high * wide for high, wide in dataset.block_shapes)
    if block > MOST_BLOCK_BYTES:
        raise InputError(
            f"its blocks have {block / 2**30:,.1f} GiB",
            file=file,
            remedy="write it in tiles, e.g. gdal_translate -of COG",
        )


def _require_own_place(dataset: rasterio.DatasetReader, path: Path) -> None:
    """Refuse a raster whose place on earth lies in a file beside it, which is not read."""
    if dataset.crs or not dataset.transform.is_identity or dataset.gcps[0]:
        return
    for other in (path.with_name(f"{path.name}.aux.xml"), *map(path.with_suffix, WORLD_FILES)):
        if not other.is_file():
            continue
        with open(other, "rb") as stream:
            text = stream.read(MOST_SIDE_BYTES)
        if other.suffix != ".xml" or b"<GeoTransform" in text or b"<SRS" in text:
            raise InputError(
                f"its place on earth lies in {other.name}, which is not read",
                file=path,
                remedy=f"write it into the file: gdal_translate {path.name} new.tif",
            )


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


def read_onto(
    path: str | Path, grid: Grid, window: Window, *, resampling: str, nodata: float
) -> np.ndarray:
    """Read the first band of a raster as it lies on a window of a grid, ``(H, W)``.

    Args:
        path: the raster, in any projection.
        grid: the grid.
        window: the window of it.
        resampling: for pixels that do not coincide with the grid's (GDAL's names).
        nodata: value of pixels without data, in the raster and here.

    Raises:
        InputError: if the file is missing or damaged.
    """
    with open_raster(path) as dataset:
        found = np.full((window.height, window.width), nodata, dataset.dtypes[0])
        reached = _reached(dataset, grid, window)
        if reached is None:
            return found
        part = np.full((reached.height, reached.width), nodata, dataset.dtypes[0])
        top, left = window.row_off + reached.row_off, window.col_off + reached.col_off
        reproject(
            rasterio.band(dataset, 1),
            part,
            src_nodata=nodata,
            dst_crs=grid.crs,
            dst_transform=grid.affine @ Affine.translation(left, top),
            dst_nodata=nodata,
            resampling=Resampling[resampling],
        )
        found[reached.toslices()] = part
    return found


def _reached(dataset: rasterio.DatasetReader, grid: Grid, window: Window) -> Window | None:
    """Return the part of a window of a grid that a raster reaches; None if it reaches none.

    Found on the outlines of both, a pixel of the raster added.
    """
    own, here = grid_of(dataset), grid.affine @ Affine.translation(window.col_off, window.row_off)
    whole = Window(0, 0, window.width, window.height)
    x, y = transform(grid.crs, own.crs, *_moved(_outline(whole), here))
    seen = _envelope(_moved((np.array(x), np.array(y)), ~own.affine), own.shape, margin=1)
    if seen is None:
        return None
    x, y = transform(own.crs, grid.crs, *_moved(_outline(seen), own.affine))
    return _envelope(_moved((np.array(x), np.array(y)), ~here), (window.height, window.width))


def _moved(points: tuple[np.ndarray, np.ndarray], by: Affine) -> tuple[np.ndarray, np.ndarray]:
    x, y = points
    return x * by.a + y * by.b + by.c, x * by.d + y * by.e + by.f


def _outline(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return columns and rows of points on the outline of a window, four steps a side."""
    cols = np.linspace(window.col_off, window.col_off + window.width, 5)
    rows = np.linspace(window.row_off, window.row_off + window.height, 5)
    across, down = np.meshgrid(cols, rows)
    edge = np.pad(np.zeros((3, 3), bool), 1, constant_values=True)
    return across[edge], down[edge]


def _envelope(
    points: tuple[np.ndarray, np.ndarray], shape: tuple[int, int], *, margin: int = 0
) -> Window | None:
    """Return the window of an image that holds all points which are finite; None if it is empty."""
    cols, rows = (values[np.isfinite(points).all(axis=0)] for values in points)
    if not len(cols):
        return None
    left, right = np.clip(
        [np.floor(cols.min()) - margin, np.ceil(cols.max()) + margin], 0, shape[1]
    )
    top, bottom = np.clip(
        [np.floor(rows.min()) - margin, np.ceil(rows.max()) + margin], 0, shape[0]
    )
    if right <= left or bottom <= top:
        return None
    return Window(int(left), int(top), int(right - left), int(bottom - top))


def first_with_data(images: Sequence[np.ndarray], *, nodata: float = 0) -> np.ndarray:
    """Lay images of one shape over each other: of each pixel, the first that has data."""
    result = images[0]
    for image in images[1:]:
        empty = np.isnan(result) if np.isnan(nodata) else result == nodata
        result = np.where(empty, image, result)
    return result


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
    with contextlib.closing(open_dataset(path)) as dataset:
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
        descriptions: one name per band (ESA names, ``VV``, ``CLASS`` ...).
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
