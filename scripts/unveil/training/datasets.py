"""Training samples: crops of clear real images, varied, and put under simulated clouds.

An image keeps a block aside for validation; training crops keep away from it by a buffer.
Samples are channels-last and in the network's unit (DN / 2000, as DSen2-CR); everything
else in the package is ``(B, H, W)`` reflectance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import array_bounds
from rasterio.warp import reproject, transform_bounds

from unveil import raster
from unveil.bands import BANDS, CORE6, REFLECTANCE_SCALE, band_positions
from unveil.clouds import CloudOptions, apply_clouds, simulate_clouds
from unveil.errors import InputError
from unveil.models.dsen2cr import OPTICAL_SCALE
from unveil.raster import Grid
from unveil.scene import is_clear, is_occluded
from unveil.training.packages import fetch_archive, unpack
from unveil.training.series import load_series

UNITS_PER_REFLECTANCE = REFLECTANCE_SCALE / OPTICAL_SCALE
VALIDATION_COVERS = (0.2, 0.5, 0.8, 0.95)
LAND_NIR = 0.1
WATER_SHARE = 0.1
_MAX_DRAWS = 1000


@dataclass(frozen=True)
class Block:
    """A rectangle of pixels: upper left row and column, height and width."""

    row: int
    col: int
    height: int
    width: int

    def grown(self, margin: int) -> Block:
        """Return the block with a margin on each side."""
        return Block(
            self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin
        )

    def overlaps(self, other: Block) -> bool:
        """Return whether two blocks share a pixel."""
        return (
            self.row < other.row + other.height
            and other.row < self.row + self.height
            and self.col < other.col + other.width
            and other.col < self.col + self.width
        )

    @property
    def index(self) -> tuple[slice, slice, slice]:
        """Index of the block in a ``(B, H, W)`` array."""
        rows = slice(self.row, self.row + self.height)
        return slice(None), rows, slice(self.col, self.col + self.width)


@dataclass(frozen=True)
class TrainingImage:
    """One clear image of one place.

    Attributes:
        id: its key in the config.
        bands: ESA names of the B bands.
        reflectance: ``(B, H, W)`` float32, NaN where nodata.
        grid: its grid.
        holdout: the block kept for validation.
        buffer: pixels around the block that training does not see either.
        dark: ``(B,)`` float32, darkest percent of each band, at L1C mostly haze.
    """

    id: str
    bands: tuple[str, ...]
    reflectance: np.ndarray
    grid: Grid
    holdout: Block
    buffer: int
    dark: np.ndarray

    def bbox(self, block: Block | None = None) -> list[float]:
        """Return west, south, east, north in degrees of the image or of a block of it."""
        block = block or Block(0, 0, *self.grid.shape)
        transform = self.grid.affine @ rasterio.Affine.translation(block.col, block.row)
        bounds = array_bounds(block.height, block.width, transform)
        found = transform_bounds(self.grid.crs, "EPSG:4326", *bounds)
        return [round(value, 5) for value in found]


@dataclass(frozen=True)
class Batch:
    """Samples for one step, in the network's unit.

    Attributes:
        cloudy: ``(N, H, W, B)`` float32, what the network sees.
        clear: ``(N, H, W, B)`` float32, the truth.
        occluded: ``(N, H, W, 1)`` float32, 1 under cloud or shadow, else 0.
    """

    cloudy: np.ndarray
    clear: np.ndarray
    occluded: np.ndarray


def fetch_image(facts: Mapping[str, Any], *, cache: Path, output: Path) -> None:
    """Fetch a 13-band image that a package distributes and write it as one COG.

    Bands of 20 m and 60 m go to the 10 m grid of B02 by nearest neighbour.

    Args:
        facts: ``package``, ``version``, ``sha256`` of the archive, and ``files``, the path in
            the archive with ``{band}`` for the ESA name.
        cache: folder of archives.
        output: the COG, uint16 reflectance x 10000, nodata 0, bands described by ESA name.

    Raises:
        InputError: if the archive cannot be had or lacks a band.
    """
    name, version = facts["package"], facts["version"]
    archive = fetch_archive(name, version, sha256=facts["sha256"], cache=cache)
    with tempfile.TemporaryDirectory() as folder:
        unpack(archive, Path(folder))
        paths = {band: Path(folder) / facts["files"].format(band=band) for band in BANDS}
        with raster.open_raster(paths["B02"]) as dataset:
            grid = raster.grid_of(dataset)
        stack = np.stack([_read_on_grid(path, grid) for path in paths.values()])
    raster.write_cog(
        output,
        stack,
        grid,
        descriptions=tuple(paths),
        nodata=0,
        tags={"LICENCE": facts["licence"], "SOURCE": f"{name} {version}", "LEVEL": facts["level"]},
    )


def load_image(
    path: Path, *, name: str, bands: Sequence[str], holdout: Block, buffer: int
) -> TrainingImage:
    """Read a clear image for training.

    Args:
        path: raster of DN x 10000 with ESA band descriptions, nodata 0.
        name: id of the image.
        bands: the bands to read.
        holdout: block kept for validation.
        buffer: pixels around it that are not used at all.

    Raises:
        InputError: if a band is missing or the block lies outside the image.
    """
    with raster.open_raster(path) as dataset:
        grid = raster.grid_of(dataset)
        try:
            positions = band_positions(bands, [str(text) for text in dataset.descriptions])
        except KeyError as error:
            raise InputError(
                str(error.args[0]), file=path, field="bands", remedy="train on bands it has"
            ) from error
        reflectance = raster.to_reflectance(dataset.read([p + 1 for p in positions]))
    rows, cols = holdout.row + holdout.height, holdout.col + holdout.width
    if min(holdout.row, holdout.col) < 0 or rows > grid.height or cols > grid.width:
        raise InputError(
            f"{holdout} lies outside the image of {grid.height} x {grid.width} pixels",
            file=path,
            field=f"training.images.{name}.holdout",
            remedy="choose a block inside the image",
        )
    dark = np.nanpercentile(reflectance, 1, axis=(1, 2)).astype(np.float32)
    return TrainingImage(name, tuple(bands), reflectance, grid, holdout, buffer, dark)


def read_core_image(path: Path) -> np.ndarray:
    """Return the six core bands of a clear image, ``(6, H, W)`` float32, 0 where nodata.

    Args:
        path: a raster of DN x 10000 with ESA band descriptions, or the ``.npz`` of a series,
            of which the clearest date is taken.
    """
    if path.suffix == ".npz":
        series = load_series(path, name=path.stem)
        clearest = int(is_clear(series.classes).mean(axis=(1, 2)).argmax())
        positions = band_positions(CORE6, series.bands)
        return np.nan_to_num(series.reflectance[clearest, positions])
    with raster.open_raster(path) as dataset:
        positions = band_positions(CORE6, [str(text) for text in dataset.descriptions])
        return np.nan_to_num(raster.to_reflectance(dataset.read([p + 1 for p in positions])))


def image_bbox(path: Path) -> list[float]:
    """Return west, south, east, north of an image in degrees."""
    if path.suffix == ".npz":
        return [round(value, 5) for value in load_series(path, name=path.stem).bbox]
    with raster.open_raster(path) as dataset:
        found = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    return [round(value, 5) for value in found]


def draw_crop(image: TrainingImage, *, size: int, rng: np.random.Generator) -> Block:
    """Draw a square training crop without nodata, away from the held-out block.

    Open water has little to learn from: such crops are kept with a probability of 0.1.

    Raises:
        InputError: if no such crop is found.
    """
    forbidden = image.holdout.grown(image.buffer)
    nir = image.bands.index("B08") if "B08" in image.bands else len(image.bands) - 1
    height, width = image.grid.shape
    for _ in range(_MAX_DRAWS):
        row, col = rng.integers(height - size + 1), rng.integers(width - size + 1)
        block, chance = Block(int(row), int(col), size, size), rng.random()
        if block.overlaps(forbidden):
            continue
        pixels = image.reflectance[block.index]
        land = float(np.mean(pixels[nir] > LAND_NIR))
        if np.isfinite(pixels).all() and chance < max(land, WATER_SHARE):
            return block
    raise InputError(
        f"no training crop of {size} pixels found in image {image.id}",
        field="training",
        remedy="use smaller crops, a smaller held-out block or a smaller buffer",
    )


def draw_batch(
    images: Sequence[TrainingImage], *, count: int, size: int, rng: np.random.Generator
) -> Batch:
    """Draw ``count`` varied training samples of ``size`` x ``size`` pixels."""
    samples = []
    for _ in range(count):
        image = images[rng.integers(len(images))]
        pixels = image.reflectance[draw_crop(image, size=size, rng=rng).index]
        clear = vary_radiometry(turn(pixels, rng), image.dark, rng)
        cover = 1 - rng.beta(1.0, 1.6)  # thick cover is the hard part, 62 % on average
        samples.append(_add_clouds(clear, image.bands, cover, rng))
    return _collate(samples)


def validation_batches(
    images: Sequence[TrainingImage], *, size: int, seed: int
) -> dict[float, Batch]:
    """Return one batch a cloud cover: all crops that tile the held-out blocks, unvaried."""
    batches = {}
    for cover in VALIDATION_COVERS:
        rng = np.random.default_rng([seed, round(100 * cover)])
        samples = [
            _add_clouds(image.reflectance[block.index], image.bands, cover, rng)
            for image in images
            for block in validation_blocks(image, size)
        ]
        batches[cover] = _collate(samples)
    return batches


def validation_blocks(image: TrainingImage, size: int) -> list[Block]:
    """Return the crops that tile the held-out block, those with nodata left out."""
    whole = image.holdout
    tiles = [
        Block(row, col, size, size)
        for row in range(whole.row, whole.row + whole.height - size + 1, size)
        for col in range(whole.col, whole.col + whole.width - size + 1, size)
    ]
    return [tile for tile in tiles if np.isfinite(image.reflectance[tile.index]).all()]


def turn(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply one of the eight symmetries of the square to ``(B, H, W)`` pixels."""
    turned = np.rot90(pixels, int(rng.integers(4)), axes=(1, 2))
    return turned[:, :, ::-1] if rng.random() < 0.5 else turned


def vary_radiometry(pixels: np.ndarray, dark: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary season, haze and light of ``(B, H, W)`` reflectance.

    A part of the dark level of each band is taken away, which leads from top-of-atmosphere
    (L1C) to about surface reflectance (L2A); then all bands and each band get a gain.
    """
    haze = rng.uniform(0, 1) * dark + rng.normal(0, 0.004, dark.shape)
    gain = np.exp(rng.normal(0, 0.2) + rng.normal(0, 0.12, dark.shape))
    varied = (pixels - haze[:, None, None]) * gain[:, None, None]
    return np.clip(varied, 1e-4, 1).astype(np.float32)


def draw_cloud_options(rng: np.random.Generator) -> CloudOptions:
    """Draw the shape of clouds: ragged to smooth, sharp to hazy, the sun anywhere."""
    return CloudOptions(
        slope=rng.uniform(1.4, 2.2),
        edge=float(np.exp(rng.uniform(np.log(0.2), np.log(2.5)))),
        max_opacity=min(1.0, rng.uniform(0.6, 1.4)),
        shadow_strength=rng.uniform(0.3, 0.7),
        shadow_distance=(4.0, 30.0),
        shadow_direction=(0.0, 360.0),
    )


def _add_clouds(
    clear: np.ndarray, bands: tuple[str, ...], cover: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clouds = simulate_clouds(clear.shape[1:], cover=cover, rng=rng, options=draw_cloud_options(rng))
    cloudy = np.clip(apply_clouds(clear, clouds, bands=bands, rng=rng), 0, 1)
    return cloudy, clear, is_occluded(clouds.classes)[None]


def _collate(samples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Batch:
    cloudy, clear, occluded = (
        np.ascontiguousarray(np.stack(part).transpose(0, 2, 3, 1), np.float32)
        for part in zip(*samples, strict=True)
    )
    unit = np.float32(UNITS_PER_REFLECTANCE)
    return Batch(cloudy * unit, clear * unit, occluded)


def _read_on_grid(path: Path, grid: Grid) -> np.ndarray:
    """Read one band on a grid by nearest neighbour; 0 beyond it, valid DN at least 1."""
    values = np.zeros(grid.shape, np.int32)
    with raster.open_raster(path) as dataset:
        reproject(
            np.maximum(dataset.read(1), 1).astype(np.int32),
            values,
            src_transform=dataset.transform,
            src_crs=dataset.crs,
            dst_transform=grid.affine,
            dst_crs=grid.crs,
            resampling=Resampling.nearest,
        )
    return values.astype(np.uint16)
