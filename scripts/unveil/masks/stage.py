"""The masks stage: one class raster and cloud probability for every optical frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from rasterio.crs import CRS
from rasterio.enums import Resampling
from scipy import ndimage

from unveil import classes as classmap
from unveil import raster
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW, SNOW, UNKNOWN_PROBABILITY
from unveil.errors import InputError
from unveil.masks import s2cloudless, thresholds
from unveil.raster import Grid
from unveil.scene import Frame, Scene, read_reflectance

LOG = logging.getLogger(__name__)

OPTICAL_ROLES = ("target", "context", "reference")
DETECTORS = ("source", "s2cloudless", "thresholds")
MASK_BANDS = ("CLASS", "CLOUD_PROBABILITY")

METRES_A_DEGREE = 111_320.0
SHADOW_REACH_PX = 300
"""Farthest a shadow may lie from a detected cloud: 3 km at 10 m, low and middle clouds."""
SHADOW_PER_CLOUD = 2.0
"""Largest believable ratio of shadow to cloud area; parallel light makes it 1, and clouds
outside the frame or on top of each other's shadows shift it."""


FULL_DETAIL_PIXELS = 2048**2
"""Largest scene on which s2cloudless looks at every pixel: a whole tile would take it hours."""
COARSE_M = 60.0
"""Its pixels on larger scenes: those of the bands B01, B09 and B10 that it uses."""


@dataclass(frozen=True)
class MaskOptions:
    """Settings of the masks stage.

    Attributes:
        detectors: detectors that may be used, each where it applies (:data:`DETECTORS`);
            ``s2cloudless`` and ``thresholds`` only where no source mask is used.
        cloud_probability: s2cloudless probability from which a pixel is cloud.
        average_over: radius in pixels over which s2cloudless probabilities are averaged
            before the threshold.
        s2cloudless_m: pixel size in metres that s2cloudless sees, where a scene has smaller
            ones; ``auto`` is the scene's own up to :data:`FULL_DETAIL_PIXELS`, and
            :data:`COARSE_M` beyond.
        dilate_px: pixels by which cloud and shadow are grown, for every detector alike.
    """

    detectors: tuple[str, ...] = DETECTORS
    cloud_probability: float = 0.4
    average_over: int = 4
    s2cloudless_m: float | Literal["auto"] = "auto"
    dilate_px: int = 2


@dataclass(frozen=True)
class _Votes:
    """What detectors found in a frame, ``(H, W)`` each; uint8 and bool to stay small."""

    cloud: np.ndarray
    shadow: np.ndarray
    snow: np.ndarray
    missing: np.ndarray
    percent: np.ndarray
    notes: list[str] = field(default_factory=list)

    @classmethod
    def none(cls, grid: Grid) -> _Votes:
        """Return a ballot without votes."""
        cloud, shadow, snow, missing = (np.zeros(grid.shape, bool) for _ in range(4))
        percent = np.full(grid.shape, UNKNOWN_PROBABILITY, np.uint8)
        return cls(cloud, shadow, snow, missing, percent)


def mask_scene(scene: Scene, folder: Path, options: MaskOptions) -> Scene:
    """Write a mask for every optical frame and return the scene with masks and covers.

    Nodata (0 or NaN in any band) wins over cloud, cloud over shadow, shadow over snow.
    Frame facts: ``unveil:mask_sources`` (detectors used), ``unveil:mask_notes``,
    ``eo:cloud_cover`` and ``unveil:shadow_cover`` (percent of valid pixels, grown as
    written).

    Args:
        scene: an assembled scene; ``frame.mask`` is what the source delivered, if anything.
        folder: folder of the scene; ``masks/DATE.tif`` and ``masks/reference_DATE.tif`` are
            written in it.
        options: settings.

    Raises:
        InputError: if a raster is damaged or holds impossible values.
    """
    done = []
    for frame in scene.frames:
        optical = frame.role in OPTICAL_ROLES
        done.append(_mask_frame(scene, frame, folder, options) if optical else frame)
    return replace(scene, frames=tuple(done))


def detect_clouds(
    reflectance: np.ndarray, bands: Sequence[str], options: MaskOptions
) -> np.ndarray:
    """Return ``(H, W)`` classes of one L1C image by s2cloudless, without growth or shadow.

    Enough to rank the dates of a place before its scene is assembled.

    Args:
        reflectance: ``(B, H, W)`` float32, NaN where nodata.
        bands: names of its bands, at least ``S2CLOUDLESS10``.
        options: settings, of which threshold and average are used.
    """
    cloud = s2cloudless.cloud_mask(
        s2cloudless.cloud_probability(reflectance, bands),
        threshold=options.cloud_probability,
        average_over=options.average_over,
    )
    none = np.zeros_like(cloud)
    missing = ~np.isfinite(reflectance).all(axis=0)
    return merge(cloud=cloud, shadow=none, snow=none, missing=missing)


def choose_detectors(
    frame: Frame, level: str, options: MaskOptions
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the detectors that apply to a frame, and why the others do not."""
    if "source" in options.detectors and frame.mask is not None:
        return ("source",), ()
    reasons = {
        "source": "the source delivers no mask",
        "s2cloudless": s2cloudless.refusal(frame.bands, level),
        "thresholds": thresholds.refusal(frame.bands),
    }
    used = tuple(name for name in options.detectors if reasons[name] is None)
    refused = tuple(reasons[name] for name in options.detectors if reasons[name])
    return used, refused


def _mask_frame(scene: Scene, frame: Frame, folder: Path, options: MaskOptions) -> Frame:
    used, notes = choose_detectors(frame, scene.level, options)
    if not used:
        LOG.warning(
            "%s %s: no cloud detector applies (%s); every pixel with data counts as clear",
            scene.id,
            frame.date,
            "; ".join(notes),
        )
    votes, sources = _Votes.none(scene.grid), list(used)
    if used == ("source",):
        sources = [_read_source(frame, scene.grid, votes)]
    _detect(frame, scene.grid, votes, used=used, options=options)
    _drop_impossible_shadow(votes, used)
    classes = merge(cloud=votes.cloud, shadow=votes.shadow, snow=votes.snow, missing=votes.missing)
    classes = classmap.dilate(classes, options.dilate_px)
    votes.percent[votes.missing] = UNKNOWN_PROBABILITY
    name = f"reference_{frame.date}" if frame.role == "reference" else frame.date
    path = folder / "masks" / f"{name}.tif"
    raster.write_cog(
        path,
        np.stack([classes, votes.percent]),
        scene.grid,
        descriptions=MASK_BANDS,
        nodata=NODATA,
        overviews=Resampling.mode,
    )
    facts = {
        "unveil:mask_sources": sources,
        "unveil:mask_notes": [*notes, *votes.notes],
        "eo:cloud_cover": _percent(classes, CLOUD),
        "unveil:shadow_cover": _percent(classes, SHADOW),
    }
    return replace(frame, mask=path, facts=frame.facts | facts)


def merge(
    *, cloud: np.ndarray, shadow: np.ndarray, snow: np.ndarray, missing: np.ndarray
) -> np.ndarray:
    """Merge bool votes ``(H, W)`` to uint8 classes: nodata, cloud, shadow, snow, clear."""
    classes = np.full(cloud.shape, CLEAR, np.uint8)
    for code, where in ((SNOW, snow), (SHADOW, shadow), (CLOUD, cloud), (NODATA, missing)):
        classes[where] = code
    return classes


def _read_source(frame: Frame, grid: Grid, votes: _Votes) -> str:
    """Enter a delivered mask in the votes and return its name."""
    with raster.open_raster(frame.mask) as dataset:
        band, shape = dataset.descriptions[0] or "", dataset.shape
        if shape != grid.shape:
            raise InputError(
                f"mask of shape {shape} for frames of {grid.shape}",
                file=frame.mask,
                remedy="resample the mask to the grid of the frames (nearest neighbour)",
            )
        delivered = dataset.read(1)
    try:
        classes = classmap.from_delivered(delivered, band)
    except InputError as error:
        raise InputError(str(error), file=frame.mask) from error
    votes.cloud[:] = classes == CLOUD
    votes.shadow[:] = classes == SHADOW
    votes.snow[:] = classes == SNOW
    votes.missing[:] = classes == NODATA
    return band.lower()


def _detect(
    frame: Frame, grid: Grid, votes: _Votes, *, used: tuple[str, ...], options: MaskOptions
) -> None:
    """Run detectors block by block; a halo makes the blocks agree with the whole image."""
    statistics = None
    if "thresholds" in used:
        bands = ("B02", "B08", "B11")
        blocks = (read_reflectance(frame, bands, window) for window in grid.windows())
        statistics = thresholds.shadow_statistics(blocks, bands)
    step = s2cloudless_step(grid, options) if "s2cloudless" in used else 1
    radius = round(options.average_over / step)
    # Whole coarse pixels, and windows that start on one.
    halo = step * -(-max(thresholds.HALO, (radius + 1) * step) // step)
    for window in grid.windows(step * (raster.BLOCK // step)):
        outer, inner = raster.with_halo(window, halo, grid)
        here = window.toslices()
        data = read_reflectance(frame, frame.bands, outer)
        votes.missing[here] |= ~np.isfinite(data).all(axis=0)[inner]
        if "s2cloudless" in used:
            probability = _probability(frame, block_means(data, step))
            cloud = s2cloudless.cloud_mask(
                probability, threshold=options.cloud_probability, average_over=radius
            )
            votes.cloud[here] |= enlarge(cloud, step, data.shape[1:])[inner]
            votes.percent[here] = enlarge(to_percent(probability), step, data.shape[1:])[inner]
        elif "thresholds" in used:
            score = thresholds.cloud_score(data, frame.bands)
            votes.cloud[here] |= (score > thresholds.CLOUD_THRESHOLD)[inner]
        if statistics:
            votes.shadow[here] |= thresholds.shadow(data, frame.bands, statistics)[inner]


def s2cloudless_step(grid: Grid, options: MaskOptions) -> int:
    """Return how many pixels along an edge s2cloudless sees as one."""
    wanted = options.s2cloudless_m
    if wanted == "auto":
        wanted = COARSE_M if grid.pixels > FULL_DETAIL_PIXELS else 0.0
    degrees = grid.crs and CRS.from_user_input(grid.crs).is_geographic
    pixel_m = abs(grid.transform[0]) * (METRES_A_DEGREE if degrees else 1.0)
    return max(1, round(wanted / pixel_m))


def block_means(image: np.ndarray, step: int) -> np.ndarray:
    """Return the means of squares of ``step`` pixels, ``(B, h, w)``; NaN pixels do not count.

    Squares at the right and lower edge may be smaller.
    """
    if step == 1:
        return image
    valid = np.isfinite(image)
    rows, cols = (np.arange(0, size, step) for size in image.shape[1:])

    def add_up(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.add.reduceat(values, rows, axis=1), cols, axis=2)

    total, count = add_up(np.where(valid, image, 0)), add_up(valid.astype(np.float32))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def enlarge(image: np.ndarray, step: int, shape: tuple[int, int]) -> np.ndarray:
    """Return each pixel ``(h, w)`` as a square of ``step`` pixels, cut to ``shape``."""
    if step == 1:
        return image
    return image.repeat(step, axis=0).repeat(step, axis=1)[: shape[0], : shape[1]]


def _probability(frame: Frame, data: np.ndarray) -> np.ndarray:
    try:
        return s2cloudless.cloud_probability(data, frame.bands)
    except InputError as error:
        raise InputError(str(error), file=frame.path) from error


def to_percent(probability: np.ndarray) -> np.ndarray:
    """Return uint8 percent of a probability 0...1, 255 where it is NaN."""
    known = np.isfinite(probability)
    percent = np.rint(np.where(known, probability, 0) * 100)
    return np.where(known, percent, UNKNOWN_PROBABILITY).astype(np.uint8)


def _drop_impossible_shadow(votes: _Votes, used: tuple[str, ...]) -> None:
    """Drop shadows of the threshold test that no detected cloud can cast.

    The test calls the darkest part of any image shadow: 5 to 47 % of cloudless SEN12MS-CR
    patches (forest, sea). A shadow needs a cloud within reach and of about its size.
    """
    if "thresholds" not in used or not votes.shadow.any():
        return
    before = int(np.count_nonzero(votes.shadow))
    votes.shadow[:] &= near(votes.cloud, SHADOW_REACH_PX) & ~votes.cloud & ~votes.missing
    clouds = int(np.count_nonzero(votes.cloud & ~votes.missing))
    if np.count_nonzero(votes.shadow) > SHADOW_PER_CLOUD * clouds:
        votes.shadow[:] = False
    if not votes.shadow.any():
        share = 100 * before / votes.shadow.size
        votes.notes.append(f"no cloud could cast the {share:.1f} % found dark; shadow not used")


def near(mask: np.ndarray, reach: int, *, cell: int = 16) -> np.ndarray:
    """Return pixels within about ``reach`` of a true pixel, judged on cells of ``cell``."""
    rows, cols = (-(-size // cell) for size in mask.shape)
    padded = np.zeros((rows * cell, cols * cell), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    coarse = padded.reshape(rows, cell, cols, cell).any(axis=(1, 3))
    if not coarse.any():
        return np.zeros(mask.shape, bool)
    close = ndimage.distance_transform_edt(~coarse) * cell <= reach
    full = np.repeat(np.repeat(close, cell, axis=0), cell, axis=1)
    return full[: mask.shape[0], : mask.shape[1]]


def _percent(classes: np.ndarray, code: int) -> float:
    valid = int(np.count_nonzero(classes != NODATA))
    return round(100 * int(np.count_nonzero(classes == code)) / valid, 2) if valid else 0.0
