"""What a grid needs of rasters on servers: which bytes, cut out, calibrated, and mosaicked.

Of a Cloud-Optimised GeoTIFF only the blocks under the grid are fetched, of the coarsest overview
that is as fine as the grid; of other formats (JPEG 2000) the whole file, once. Cut-outs go to
small local files, which are then brought onto the grid.
"""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.transform import GCPTransformer, array_bounds, xy
from rasterio.warp import reproject, transform, transform_bounds
from rasterio.windows import Window, from_bounds

from unveil.errors import InputError
from unveil.raster import (
    HEAD_BYTES,
    Grid,
    first_with_data,
    grid_of,
    open_alone,
    open_raster,
    read_onto,
)
from unveil.remote.range_cache import BadFileError, RangeCache, Remote, RemoteFile, Span
from unveil.stored import is_tagged

MARGIN = 4
"""Pixels around the grid that interpolation may look at."""
SLANT_MARGIN = 64
"""The same where the place of a pixel is only known from control points."""
MOST_POINTS = 2_000
"""Control points; images of Sentinel-1 have about 200, and the spline is cubic in them."""
FINEST = 400
"""Most pixels of a raster for one of the grid: half a metre under ten."""
BLOCK = 2048
"""Edge of the windows in which mosaics are made, so that large places fit into memory."""


@dataclass(frozen=True)
class Cut:
    """What a grid needs of one raster.

    Attributes:
        remote: the file.
        level: overview, None for full resolution.
        window: pixels of that level.
        shape: rows and columns of the whole image at that level.
        spans: the bytes that hold the window.
    """

    remote: Remote
    level: int | None
    window: Window
    shape: tuple[int, int]
    spans: tuple[Span, ...]


@contextlib.contextmanager
def open_remote(
    cache: RangeCache, remote: Remote, *, level: int | None = None
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster on a server; bytes come through the cache.

    Raises:
        BadFileError: if it is gone, damaged, or no raster that may be read.
        InputError: if it cannot be fetched.
    """
    name = f"{uuid.uuid4().hex}/{remote.name}"
    files: list[RemoteFile] = []

    def opener(path: str, mode: str = "r", **_: object) -> RemoteFile:
        if path != name:  # side-car files that GDAL looks for
            raise FileNotFoundError(path)
        files.append(cache.open(remote, silent=True))
        return files[-1]

    def reraise() -> None:
        for file in files:
            if file.error:
                raise file.error

    try:
        with _opened(cache, remote, name, level, opener) as dataset:
            yield dataset
    except (RasterioError, OSError) as error:
        reraise()
        raise _damaged(remote, error) from error
    reraise()  # what GDAL took for the end of the file


def _opened(
    cache: RangeCache, remote: Remote, name: str, level: int | None, opener: Callable
) -> rasterio.DatasetReader:
    with cache.open(remote) as file:
        head = file.read(HEAD_BYTES)
    try:
        return open_alone(
            name, head=head, size=remote.size, file=remote.href, level=level, opener=opener
        )
    except ValueError as error:  # an InputError, too: the file is at fault, not the network
        raise _damaged(remote, error) from error


def _damaged(remote: Remote, error: Exception) -> BadFileError:
    return BadFileError(
        f"cannot be read as a raster ({error})",
        file=remote.href,
        remedy="the server's file is damaged; leave the item out (sources.stac.leave_out)",
    )


# --- which bytes ----------------------------------------------------------------------------


def plan_cut(cache: RangeCache, remote: Remote, grid: Grid) -> Cut | None:
    """Find out what a grid needs of a raster; None if the raster lies elsewhere.

    Only the head of the file is fetched for that.

    Raises:
        BadFileError: if it is gone, damaged, no raster that may be read, or has no place.
        InputError: if it cannot be fetched.
    """
    try:
        return _plan(cache, remote, grid)
    except InputError:
        raise
    except Exception as error:  # what lies where on earth is the file's own word
        raise _damaged(remote, error) from error


def _plan(cache: RangeCache, remote: Remote, grid: Grid) -> Cut | None:
    with open_remote(cache, remote) as dataset:
        if not dataset.crs and dataset.gcps[0]:
            window = _window_by_points(dataset, grid)
            level, blocks = None, dataset.block_shapes[0]
        else:
            window = _window(dataset, grid)
            level, blocks = _level(dataset, window, grid), dataset.block_shapes[0]
        if window is None:
            return None
        shape = dataset.shape
        if level is not None:
            with open_remote(cache, remote, level=level) as overview:
                window, blocks = _window(overview, grid), overview.block_shapes[0]
                shape = overview.shape
        _require_bounded(window, grid, remote)
        spans: tuple[Span, ...] = ((0, remote.size),)
        if dataset.driver == "GTiff":
            spans = tuple(_spans(dataset, window, level, blocks))
        return Cut(remote, level, window, shape, spans)


def _require_bounded(window: Window, grid: Grid, remote: Remote) -> None:
    """Refuse rasters so fine that what lies under the grid does not fit into memory."""
    if window.width * window.height > FINEST * grid.pixels + (2 * SLANT_MARGIN + 2048) ** 2:
        raise BadFileError(
            f"{window.width:,} x {window.height:,} of its pixels lie under {grid.width} x "
            f"{grid.height} of the scene",
            file=remote.href,
            remedy="leave the item out (sources.stac.leave_out)",
        )


def _window(dataset: rasterio.DatasetReader, grid: Grid) -> Window | None:
    source = grid_of(dataset)
    bounds = array_bounds(grid.height, grid.width, grid.affine)
    if source.crs != grid.crs:
        bounds = transform_bounds(grid.crs, dataset.crs, *bounds, densify_pts=41)
    window = from_bounds(*bounds, transform=dataset.transform)
    return _clip(window, 0 if _aligned(source, grid) else MARGIN, dataset.shape)


def _aligned(source: Grid, grid: Grid) -> bool:
    """Whether pixels coincide, so that nothing is interpolated."""
    size = grid.transform[0]
    same = source.crs == grid.crs and math.isclose(source.transform[0], size)
    shifts = (
        (a - b) / size for a, b in zip(source.transform[2::3], grid.transform[2::3], strict=True)
    )
    return same and all(abs(s - round(s)) < 1e-3 for s in shifts)


def _clip(window: Window, margin: int, shape: tuple[int, int]) -> Window | None:
    top, left = math.floor(window.row_off + 1e-6), math.floor(window.col_off + 1e-6)
    bottom = math.ceil(window.row_off + window.height - 1e-6)
    right = math.ceil(window.col_off + window.width - 1e-6)
    top, left = max(0, top - margin), max(0, left - margin)
    bottom, right = min(shape[0], bottom + margin), min(shape[1], right + margin)
    return Window(left, top, right - left, bottom - top) if bottom > top and right > left else None


def _level(dataset: rasterio.DatasetReader, window: Window | None, grid: Grid) -> int | None:
    """Return the coarsest overview that is at least as fine as the grid."""
    if window is None:
        return None
    pixels = abs(dataset.transform[0])
    if grid_of(dataset).crs == grid.crs:
        factor = grid.transform[0] / pixels
    else:
        factor = math.sqrt(window.width * window.height / grid.pixels)
    fine = [n for n, by in enumerate(dataset.overviews(1)) if by <= factor * 1.01]
    return fine[-1] if fine else None


def _window_by_points(dataset: rasterio.DatasetReader, grid: Grid) -> Window | None:
    points, crs = dataset.gcps
    if len(points) > MOST_POINTS:
        raise ValueError(f"{len(points):,} control points")
    edges = np.linspace(0, grid.width, 21), np.linspace(0, grid.height, 21)
    cols, rows = (part.ravel() for part in np.meshgrid(*edges))
    x, y = xy(grid.affine, rows, cols, offset="ul")
    longitude, latitude = transform(grid.crs, crs, x, y)
    with GCPTransformer(points, tps=True) as transformer:
        lines, pixels = transformer.rowcol(longitude, latitude)
    top, left = min(lines), min(pixels)
    window = Window(left, top, max(pixels) - left + 1, max(lines) - top + 1)
    return _clip(window, SLANT_MARGIN, dataset.shape)


def _spans(
    dataset: rasterio.DatasetReader, window: Window, level: int | None, blocks: tuple[int, int]
) -> Iterator[Span]:
    high, wide = blocks
    (top, bottom), (left, right) = window.toranges()
    bands = 1 if dataset.profile.get("interleave") == "pixel" else dataset.count
    for band in range(1, bands + 1):
        for row in range(top // high, -(-bottom // high)):
            for col in range(left // wide, -(-right // wide)):
                place = f"{col}_{row}"
                start, size = (
                    dataset.get_tag_item(f"BLOCK_{what}_{place}", "TIFF", bidx=band, ovr=level)
                    for what in ("OFFSET", "SIZE")
                )
                if start and size and int(size):  # a block without data is not stored
                    yield int(start), int(start) + int(size)


# --- cutting --------------------------------------------------------------------------------


Convert = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Turns stored numbers ``(H, W)`` at lines ``(H, 1)`` and pixels ``(1, W)`` of the full image
into what is mosaicked."""


def read_cut(cache: RangeCache, cut: Cut) -> np.ndarray:
    """Read the numbers of a cut as stored, ``(H, W)``; what the file tags as nodata is 0."""
    with open_remote(cache, cut.remote, level=cut.level) as dataset:
        stored = dataset.read(1, window=cut.window)
        return np.where(_tagged(stored, dataset.nodata), stored.dtype.type(0), stored)


def _tagged(stored: np.ndarray, nodata: float | None) -> np.ndarray:
    return is_tagged(stored[None], [nodata])[0]


def write_cut(
    cache: RangeCache, cut: Cut, grid: Grid, path: Path, *, convert: Convert, nodata: float
) -> None:
    """Write a cut, converted, to a small GeoTIFF with its place on earth.

    What the file itself tags as nodata is nodata, whatever it would be converted to.
    Images that are placed by control points are brought onto the grid (bilinear).
    """
    with open_remote(cache, cut.remote, level=cut.level) as dataset:
        stored = dataset.read(1, window=cut.window)
        (top, bottom), (left, right) = cut.window.toranges()
        lines, pixels = np.arange(top, bottom)[:, None], np.arange(left, right)[None, :]
        tagged = _tagged(stored, dataset.nodata)
        data = convert(stored, lines, pixels)
        data = np.where(tagged, data.dtype.type(nodata), data)
        placed = grid_of(dataset)
        affine = dataset.window_transform(cut.window)
        points, crs = dataset.gcps
    if not placed.crs and points:
        shifted = [GroundControlPoint(p.row - top, p.col - left, p.x, p.y) for p in points]
        data = _onto_grid(data, shifted, crs, grid, nodata)
        placed, affine = grid, grid.affine
    profile = {"driver": "GTiff", "count": 1, "dtype": data.dtype.name, "nodata": nodata}
    size = {"height": data.shape[0], "width": data.shape[1]}
    with rasterio.open(path, "w", **profile, **size, crs=placed.crs, transform=affine) as target:
        target.write(data, 1)


def _onto_grid(data, points, crs, grid: Grid, nodata: float) -> np.ndarray:
    warped = np.full(grid.shape, nodata, data.dtype)
    reproject(
        data,
        warped,
        gcps=points,
        src_crs=crs,
        src_nodata=nodata,
        dst_crs=grid.crs,
        dst_transform=grid.affine,
        dst_nodata=nodata,
        resampling=Resampling.bilinear,
        SRC_METHOD="GCP_TPS",
    )
    return warped


# --- mosaicking -----------------------------------------------------------------------------


def mosaic(
    parts: Sequence[Mapping[str, Path]],
    grid: Grid,
    path: Path,
    *,
    bands: Sequence[str],
    resampling: str,
    nodata: float,
) -> None:
    """Bring cut-outs of one date onto a grid and write them to one local GeoTIFF.

    Where parts overlap, the first that has data is taken.

    Args:
        parts: files by band, one mapping an item.
        grid: the grid.
        path: the file.
        bands: their order in the file.
        resampling: for parts on other pixels than the grid (GDAL's names).
        nodata: value of pixels without data.
    """
    with open_raster(next(iter(parts[0].values()))) as first:
        dtype = first.dtypes[0]
    profile = {"driver": "GTiff", "count": len(bands), "dtype": dtype, "nodata": nodata}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}
    size = {"height": grid.height, "width": grid.width}
    with rasterio.open(
        path, "w", **profile, **tiles, **size, crs=grid.crs, transform=grid.affine
    ) as target:
        for position, name in enumerate(bands, 1):
            target.set_band_description(position, name)
            files = [part[name] for part in parts if name in part]
            for window in grid.windows(BLOCK) if files else ():
                images = [
                    read_onto(file, grid, window, resampling=resampling, nodata=nodata)
                    for file in files
                ]
                target.write(first_with_data(images, nodata=nodata), position, window=window)
