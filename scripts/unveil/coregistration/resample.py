"""Moving a raster by a fraction of a pixel, once, with the kernel that its content asks for.

Arrays are ``(B, H, W)``. Reflectance goes through Keys' cubic kernel (1981, IEEE Transactions on
Acoustics, Speech, and Signal Processing 29:1153-1160; a = -1/2, GDAL's ``cubic``). A pixel has
data where all that lie under it, two by two, had some; where the wider kernel meets none, the
linear one is used. Of classes a pixel takes cloud or shadow from any that lie under it, for their
light is mixed into its own, else the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.windows import Window

from unveil import raster
from unveil.bands import NODATA, OCCLUDED_CLASSES, UNKNOWN_PROBABILITY
from unveil.raster import Grid
from unveil.scene import is_occluded

HALO_PX = 2
"""Pixels that the widest kernel reaches beyond a whole one."""
Mover = Callable[[np.ndarray, tuple[float, float]], np.ndarray]
"""Moves ``(B, H + 4, W + 4)`` by ``-(dy, dx)`` of less than a pixel, to ``(B, H, W)``."""


def shift_image(source: Path, destination: Path, grid: Grid, shift: tuple[float, float]) -> None:
    """Write an image with its content moved by ``(-dy, -dx)`` pixels: a shift undone.

    Args:
        source: a raster on ``grid``, uint16, nodata 0.
        destination: the file to write, a COG on the same grid.
        grid: the grid.
        shift: ``(dy, dx)`` as measured.
    """
    _shift(source, destination, grid, shift, mover=move_image, nodata=0)


def shift_mask(source: Path, destination: Path, grid: Grid, shift: tuple[float, float]) -> None:
    """Write a class raster (bands CLASS, CLOUD_PROBABILITY) with its content moved likewise."""
    _shift(source, destination, grid, shift, mover=move_mask, nodata=NODATA)


def shift_veil(source: Path, destination: Path, grid: Grid, shift: tuple[float, float]) -> None:
    """Write a raster of excess (uint16, nodata 0), which is smooth, with its content moved."""
    _shift(source, destination, grid, shift, mover=move_veil, nodata=0)


def move_image(image: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    """Return reflectance moved by ``-part`` pixels, each part in [0, 1).

    Args:
        image: ``(B, H + 4, W + 4)`` uint16, nodata 0.
        part: rows and columns.
    """
    return np.stack([_move_band(band, part) for band in image])  # one by one they fit the cache


def _move_band(band: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    moved = _moved(band.astype(np.float32), part, _cubic)
    np.rint(moved, out=moved)
    np.clip(moved, 1, np.iinfo(band.dtype).max, out=moved)
    unknown = band == 0
    if unknown.any():
        linear = np.rint(_moved(band.astype(np.float32), part, _linear))
        moved = np.where(_touches(unknown, part, _cubic), linear, moved)
        moved = np.where(_touches(unknown, part, _linear), 0, moved)
    return moved.astype(band.dtype)


def move_veil(veil: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    """Return an excess moved by ``-part`` pixels, each part in [0, 1), by the linear kernel.

    Args:
        veil: ``(1, H + 4, W + 4)`` uint16, nodata 0.
        part: rows and columns.
    """
    moved = np.rint(_moved(veil.astype(np.float32), part, _linear))
    return np.where(_touches(veil == 0, part, _linear), 0, moved).astype(veil.dtype)


def move_mask(mask: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    """Return classes and probability moved by ``-part`` pixels, each part in [0, 1).

    Args:
        mask: ``(2, H + 4, W + 4)`` uint8, classes and percent.
        part: rows and columns.
    """
    classes, probability = mask[0], mask[1]
    rows, cols = (slice(HALO_PX + (value > 0.5), None) for value in part)
    shape = tuple(size - 2 * HALO_PX for size in classes.shape)
    nearest = mask[:, rows, cols][:, : shape[0], : shape[1]].copy()
    found = nearest[0]
    seen = ~is_occluded(found)
    for code in OCCLUDED_CLASSES:
        found[seen & _touches(classes == code, part, _linear)] = code
    found[_touches(classes == NODATA, part, _linear)] = NODATA
    unknown = _touches(probability == UNKNOWN_PROBABILITY, part, _linear)
    mixed = np.rint(_moved(probability.astype(np.float32), part, _linear))
    nearest[1] = np.where(unknown, nearest[1], mixed)
    return nearest


def _shift(
    source: Path,
    destination: Path,
    grid: Grid,
    shift: tuple[float, float],
    *,
    mover: Mover,
    nodata: int,
) -> None:
    (top, down), (left, right) = (divmod(round(value, 6), 1) for value in shift)
    whole, part = (int(top), int(left)), (down, right)
    classes = mover is move_mask
    with (
        raster.open_raster(source) as dataset,
        raster.cog_writer(
            destination,
            grid,
            dtype=dataset.dtypes[0],
            descriptions=[text or "" for text in dataset.descriptions],
            nodata=nodata,
            tags=dataset.tags(),
            overviews=Resampling.mode if classes else Resampling.average,
        ) as writer,
    ):
        for window in grid.windows():
            data = _read_beyond(dataset, window, whole, nodata=nodata)
            writer.write(mover(data, part), window=window)


def _read_beyond(
    dataset: rasterio.DatasetReader, window: Window, offset: tuple[int, int], *, nodata: int
) -> np.ndarray:
    """Read a window, moved by whole pixels and with a halo; nodata beyond the raster."""
    tops = window.row_off + offset[0] - HALO_PX, window.col_off + offset[1] - HALO_PX
    sizes = window.height + 2 * HALO_PX, window.width + 2 * HALO_PX
    ends = [
        (max(0, top), min(whole, top + size))
        for top, size, whole in zip(tops, sizes, dataset.shape, strict=True)
    ]
    data = np.full((dataset.count, *sizes), nodata, dataset.dtypes[0])
    if all(first < last for first, last in ends):
        inside = tuple(
            slice(first - top, last - top) for (first, last), top in zip(ends, tops, strict=True)
        )
        data[:, *inside] = dataset.read(window=Window.from_slices(*ends))
    return data


def _cubic(part: float) -> np.ndarray:
    """Return Keys' weights of the pixels at -1, 0, 1 and 2."""
    t = part
    return np.array(
        [
            -t / 2 + t**2 - t**3 / 2,
            1 - 5 * t**2 / 2 + 3 * t**3 / 2,
            t / 2 + 2 * t**2 - 3 * t**3 / 2,
            -(t**2) / 2 + t**3 / 2,
        ]
    )


def _linear(part: float) -> np.ndarray:
    return np.array([0, 1 - part, part, 0])


Kernel = Callable[[float], np.ndarray]


def _moved(image: np.ndarray, part: tuple[float, float], kernel: Kernel) -> np.ndarray:
    """Return an image through a separable kernel, without its halo."""
    for axis, value in zip((-2, -1), part, strict=True):
        image = _along(image, kernel(value), axis)
    return image


def _touches(marked: np.ndarray, part: tuple[float, float], kernel: Kernel) -> np.ndarray:
    """Return where a kernel gives weight to a marked pixel."""
    count = marked.astype(np.float32)
    for axis, value in zip((-2, -1), part, strict=True):
        count = _along(count, (kernel(value) != 0).astype(float), axis)
    return count > 0


def _along(image: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Return the weighted sum of the pixels at -1, 0, 1 and 2 along an axis, less the halo."""
    size = image.shape[axis] - 2 * HALO_PX
    total: np.ndarray | None = None
    for place, weight in enumerate(weights):
        if weight:
            index = [slice(None)] * image.ndim
            index[axis] = slice(place + HALO_PX - 1, place + HALO_PX - 1 + size)
            term = np.float32(weight) * image[tuple(index)]
            total = term if total is None else np.add(total, term, out=total)
    assert total is not None  # the weights have the sum 1
    return total
