"""The coregistration stage: sub-pixel shifts between the frames of a scene.

Every frame is measured against one anchor, the clearest frame, because the target is
cloudy. Where the target can be measured too, shifts are expressed relative to the target;
the target itself is never resampled, for predictions are written on its grid. A shift is
that of the frame's *content*: ``(1, 0)`` means it lies one row too far south.

An integer estimate comes from masked phase correlation (Padfield 2012, IEEE Transactions
on Image Processing 21:2706-2718; scikit-image), a sub-pixel one from least squares on the
brightness gradient (Lucas and Kanade 1981, IJCAI) over the pixels that are clear in both
images. Both work on band-passed images, so that season and illumination matter less.
Model: one translation per frame.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from unveil import raster
from unveil.bands import NODATA
from unveil.protocols import PROTOCOLS
from unveil.raster import Grid
from unveil.scene import (
    JUDGED,
    Frame,
    Scene,
    is_clear,
    read_mask,
    read_reflectance,
    require_mask,
    require_occlusion,
)

LOG = logging.getLogger(__name__)

WINDOW_PX = 512
MAX_WINDOWS = 9
MIN_CLEAR_PX = 1000
"""Fewest pixels, clear in both images and away from cloud edges, that a shift is read from."""
MIN_TEXTURE = 1e-4
"""Smallest standard deviation of a band-passed image, in reflectance (one DN)."""

_FINE_PX, _COARSE_PX = 1.0, 6.0  # band pass: difference of two Gaussians
_EDGE_PX = 2  # clear pixels this near to a cloud are not used
_ITERATIONS = 10
_SETTLED_PX = 0.005
_AGREEMENT_PX = 0.5  # windows of a large scene that differ by more do not agree


@dataclass(frozen=True)
class CoregistrationOptions:
    """Settings of the coregistration stage.

    Attributes:
        band: band that shifts are estimated on; the first band where a scene lacks it.
        min_shift_px: shifts up to this are recorded but not applied.
        max_shift_px: shifts of more are taken for an error and not applied.
        min_reliability: correlation after the shift from which an estimate counts. On
            pairs of dates of a Carpathian forest, moving frames by B04 estimates above 0.6
            lowered the difference in B08, which they had not seen, by 12 to 21 %; below
            0.5 many estimates were off by pixels.
    """

    band: str = "B04"
    min_shift_px: float = 0.2
    max_shift_px: float = 5.0
    min_reliability: float = 0.6


@dataclass(frozen=True)
class ShiftEstimate:
    """A measured shift.

    Attributes:
        shift: ``(dy, dx)`` in pixels of the content, south and east; None if not measured.
        reliability: correlation 0...1 of the band-passed clear pixels after the shift,
            times the share of windows that agree.
        note: why there is no shift, if so.
    """

    shift: tuple[float, float] | None
    reliability: float = 0.0
    note: str = ""

    def usable(self, options: CoregistrationOptions) -> bool:
        """Return whether the estimate is reliable and of a believable size."""
        return (
            self.shift is not None
            and self.reliability >= options.min_reliability
            and _length(self.shift) <= options.max_shift_px
        )


def coregister_scene(scene: Scene, folder: Path, options: CoregistrationOptions) -> Scene:
    """Measure the shift of every optical frame, apply the large ones, record all.

    Writes ``coregistered/DATE.tif`` and ``coregistered/masks/DATE.tif`` for frames that
    are moved (``reference_DATE`` for a paired reference). Frame facts:
    ``unveil:shift_px`` ([dy, dx] or null), ``unveil:shift_reliability``,
    ``unveil:shift_applied``, ``unveil:shift_note``. Scene fact: ``coregistration``.

    The truth of another date is measured where the scored set is clear, so that neither the
    masks that models see nor the context move what they are judged on.

    Args:
        scene: a scene whose masks stage has run.
        folder: folder of the scene.
        options: settings.

    Raises:
        InputError: if a raster is damaged.
    """
    anchor = choose_anchor(scene)
    band = options.band if options.band in scene.bands else scene.bands[0]
    target = _measure_target(scene, anchor, band, options)
    truth, done = PROTOCOLS[scene.protocol], []
    facts = {
        "anchor": anchor.date,
        "band": band,
        "target_shift_px": _rounded(target.shift),
        "target_note": target.note,
    }
    for frame in scene.frames:
        if frame.role == "target":
            done.append(_record(frame, ShiftEstimate((0.0, 0.0), 1.0), "grid of the scene"))
        elif frame.role == "context":
            found = _measure_to_target(scene, frame, anchor, band=band, target=target)
            done.append(_correct(scene, frame, folder, found=found, options=options))
        elif frame.role == "reference" and not truth.exact:
            found = _measure_truth(scene, frame, band)
            done.append(_correct(scene, frame, folder, found=found, options=options))
            facts["truth_clear_by"] = _clear_by(scene)
        elif frame.role == "reference":
            done.append(_record(frame, ShiftEstimate((0.0, 0.0), 1.0), "made with the target"))
        else:
            done.append(frame)
    return replace(scene, frames=tuple(done), facts=scene.facts | {"coregistration": facts})


def choose_anchor(scene: Scene) -> Frame:
    """Return the frame to measure against: the clearest of target and context.

    Clear shares are compared in steps of 5 %, then the frame nearest to the target in time
    is taken, because season changes what shifts are read from. The reference is never the
    anchor: no frame that models see may depend on the truth.
    """
    frames = (scene.target, *scene.context)
    day = scene.target.day

    def rank(frame: Frame) -> tuple[float, int, str]:
        share = float(np.mean(_decimated_clear(frame)))
        return -round(share * 20), abs((frame.day - day).days), frame.date

    return min(frames, key=rank)


def estimate_shift(
    reference: np.ndarray,
    moving: np.ndarray,
    *,
    reference_clear: np.ndarray,
    moving_clear: np.ndarray,
) -> ShiftEstimate:
    """Estimate the shift of the content of ``moving`` relative to ``reference``.

    Args:
        reference: ``(H, W)`` float reflectance; values outside the mask are ignored.
        moving: the same.
        reference_clear: ``(H, W)`` bool.
        moving_clear: ``(H, W)`` bool.
    """
    both = reference_clear & moving_clear
    clear = int(np.count_nonzero(_erode(both)))
    if clear < MIN_CLEAR_PX:
        return ShiftEstimate(None, note=f"{clear} pixels are clear in both, {MIN_CLEAR_PX} needed")
    passed = (_band_pass(reference, reference_clear), _band_pass(moving, moving_clear))
    if min(float(np.std(image[both])) for image in passed) < MIN_TEXTURE:
        return ShiftEstimate(None, note="image without texture")
    integer, *_ = phase_cross_correlation(
        *passed,
        reference_mask=_erode(reference_clear),
        moving_mask=_erode(moving_clear),
        overlap_ratio=0.5,
    )
    shift, correlation = _refine(
        _filled(reference, reference_clear),
        _filled(moving, moving_clear),
        reference_clear=reference_clear,
        moving_clear=ndimage.binary_erosion(moving_clear, np.ones((3, 3), bool)),
        start=-np.asarray(integer, float),
    )
    if shift is None:
        return ShiftEstimate(None, note="the estimate did not settle")
    return ShiftEstimate((float(shift[0]), float(shift[1])), max(0.0, correlation))


def shift_raster(
    source: Path,
    destination: Path,
    grid: Grid,
    *,
    shift: tuple[float, float],
    resampling: Resampling,
    nodata: int,
) -> None:
    """Undo a shift: write ``source`` with its content moved by ``(-dy, -dx)`` pixels.

    Args:
        source: a raster on ``grid``.
        destination: the file to write, a COG on the same grid.
        grid: the grid.
        shift: ``(dy, dx)`` as measured.
        resampling: ``cubic`` for reflectance, ``nearest`` for classes.
        nodata: value without data, kept out of the interpolation.
    """
    a, b, c, d, e, f = grid.transform
    dy, dx = shift
    # Without a georeference any CRS serves: both sides have the same.
    crs = grid.crs or "EPSG:3857"
    with (
        raster.open_raster(source) as dataset,
        WarpedVRT(
            dataset,
            src_crs=crs,
            crs=crs,
            src_transform=Affine(a, b, c - a * dx - b * dy, d, e, f - d * dx - e * dy),
            transform=grid.affine,
            width=grid.width,
            height=grid.height,
            src_nodata=nodata,
            nodata=nodata,
            resampling=resampling,
        ) as moved,
        raster.cog_writer(
            destination,
            grid,
            dtype=dataset.dtypes[0],
            descriptions=[text or "" for text in dataset.descriptions],
            nodata=nodata,
            tags=dataset.tags(),
            overviews=Resampling.mode if resampling is Resampling.nearest else Resampling.average,
        ) as writer,
    ):
        for window in grid.windows():
            writer.write(moved.read(window=window), window=window)


# --- measuring ------------------------------------------------------------------------


def _measure_target(
    scene: Scene, anchor: Frame, band: str, options: CoregistrationOptions
) -> ShiftEstimate:
    """Measure the target against the anchor; (0, 0) with a note where that fails."""
    if anchor.role == "target":
        return ShiftEstimate((0.0, 0.0), 1.0, "the target is the anchor")
    found = _measure(scene.grid, anchor, scene.target, band)
    if found.usable(options):
        return found
    reason = found.note or f"reliability {found.reliability:.2f}, shift {_rounded(found.shift)}"
    note = f"target not measured ({reason}); taken to lie on the anchor's grid"
    return ShiftEstimate((0.0, 0.0), found.reliability, note)


def _measure_to_target(
    scene: Scene, frame: Frame, anchor: Frame, *, band: str, target: ShiftEstimate
) -> ShiftEstimate:
    """Return the shift of a frame relative to the target, by way of the anchor."""
    assert target.shift is not None  # as _measure_target leaves it
    if frame == anchor:
        moved = any(target.shift)
        found = ShiftEstimate(
            (0.0, 0.0), target.reliability if moved else 1.0, "" if moved else "the anchor"
        )
    else:
        found = _measure(scene.grid, anchor, frame, band)
    if found.shift is None:
        return found
    dy, dx = (own - base for own, base in zip(found.shift, target.shift, strict=True))
    return replace(found, shift=(dy, dx))


def _measure_truth(scene: Scene, truth: Frame, band: str) -> ShiftEstimate:
    """Return the shift of a truth relative to the target, by the fixed masks of both."""
    scored = require_occlusion(scene).path
    target, truth = (replace(frame, mask=scored) for frame in (scene.target, truth))
    return _measure(scene.grid, target, truth, band)


def _clear_by(scene: Scene) -> str:
    """Say what tells the clear pixels by which a truth is laid onto its target."""
    judged = require_occlusion(scene).facts.get(JUDGED, [])
    if not judged:
        return "delivered masks of both dates"
    return f"detectors with default settings, as no mask of {' and '.join(judged)} is delivered"


def _measure(grid: Grid, anchor: Frame, frame: Frame, band: str) -> ShiftEstimate:
    if band not in anchor.bands or band not in frame.bands:
        return ShiftEstimate(None, note=f"a frame has no band {band}")
    windows = choose_windows(grid, _decimated_clear(anchor), _decimated_clear(frame))
    estimates = []
    for window in windows:
        reference, reference_clear = _read_clear(anchor, band, window)
        moving, moving_clear = _read_clear(frame, band, window)
        estimates.append(
            estimate_shift(
                reference, moving, reference_clear=reference_clear, moving_clear=moving_clear
            )
        )
    return combine(estimates)


def combine(estimates: list[ShiftEstimate]) -> ShiftEstimate:
    """Merge the estimates of several windows: their median, doubted as far as they differ."""
    found = [estimate for estimate in estimates if estimate.shift is not None]
    if not found:
        return estimates[0]
    shifts = np.array([estimate.shift for estimate in found])
    middle = np.median(shifts, axis=0)
    agree = np.hypot(*(shifts - middle).T) <= _AGREEMENT_PX
    correlation = float(np.median([estimate.reliability for estimate in found]))
    return ShiftEstimate((float(middle[0]), float(middle[1])), correlation * float(agree.mean()))


def choose_windows(grid: Grid, *clear: np.ndarray) -> list[Window]:
    """Return at most nine windows of about 512 px, spread over where all images are clear.

    Args:
        grid: grid of the scene.
        clear: decimated clear masks ``(h, w)`` bool of the images, all of one shape.
    """
    rows, cols = (max(1, round(size / WINDOW_PX)) for size in grid.shape)
    both = np.logical_and.reduce(clear)
    shares = np.array(
        [
            part.mean() if part.size else 0.0
            for strip in np.array_split(both, rows, axis=0)
            for part in np.array_split(strip, cols, axis=1)
        ]
    )
    good = np.flatnonzero(shares >= shares.max() / 2)
    picked = good[np.unique(np.linspace(0, len(good) - 1, MAX_WINDOWS).round().astype(int))]
    row_edges = np.linspace(0, grid.height, rows + 1).astype(int)
    col_edges = np.linspace(0, grid.width, cols + 1).astype(int)
    windows = []
    for row, col in (divmod(int(position), cols) for position in picked):
        top, left = row_edges[row], col_edges[col]
        windows.append(Window(left, top, col_edges[col + 1] - left, row_edges[row + 1] - top))
    return windows


def _read_clear(frame: Frame, band: str, window: Window) -> tuple[np.ndarray, np.ndarray]:
    image = read_reflectance(frame, (band,), window)[0]
    classes, _ = read_mask(frame, window)
    return image, is_clear(classes) & np.isfinite(image)


def _decimated_clear(frame: Frame) -> np.ndarray:
    """Return a small ``(h, w)`` bool raster of clear pixels, the same shape for all frames."""
    return is_clear(raster.read_decimated(require_mask(frame))[0])


def _refine(
    reference: np.ndarray,
    moving: np.ndarray,
    *,
    reference_clear: np.ndarray,
    moving_clear: np.ndarray,
    start: np.ndarray,
) -> tuple[np.ndarray | None, float]:
    """Refine a shift by Gauss-Newton steps; returns the shift (None: diverged), correlation.

    Both images are band-passed with the *same* mask in each step: with their own masks the
    edges of the clouds, which differ, would pull the estimate.
    """
    shift, correlation = start.copy(), 0.0
    for _ in range(_ITERATIONS):
        moved = ndimage.shift(moving, -shift, order=3, mode="nearest")
        visible = ndimage.shift(moving_clear.astype(np.float32), -shift, order=1, cval=0)
        both = reference_clear & (visible > 0.999)
        used = _erode(both)
        if np.count_nonzero(used) < MIN_CLEAR_PX:
            return None, 0.0
        fixed, floating = _band_pass(reference, both), _band_pass(moved, both)
        correlation = _correlation(fixed[used], floating[used])
        step = _gradient_step(fixed, floating, used)
        shift = shift + step
        if np.abs(shift - start).max() > 2:
            return None, 0.0
        if np.abs(step).max() < _SETTLED_PX:
            break
    return shift, correlation


def _gradient_step(fixed: np.ndarray, floating: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return the ``(dy, dx)`` that explains ``floating - gain * fixed`` to first order."""
    dy, dx = np.gradient((fixed + floating) / 2)
    columns = np.stack([dy[used], dx[used], fixed[used]], axis=1)
    solution, *_ = np.linalg.lstsq(columns.T @ columns, columns.T @ floating[used], rcond=None)
    gain = max(float(solution[2]), 0.2)  # a small gain would make wild steps
    return np.clip(-solution[:2] / gain, -1, 1)


def _band_pass(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the difference of two Gaussian means over the mask, 0 outside of it."""
    fine = _masked_mean(image, mask, _FINE_PX)
    return np.where(mask, fine - _masked_mean(image, mask, _COARSE_PX), 0.0)


def _filled(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the image with local means outside the mask, so that splines do not ring."""
    return np.where(mask, image, _masked_mean(image, mask, _COARSE_PX))


def _masked_mean(image: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    weight = ndimage.gaussian_filter(mask.astype(np.float64), sigma)
    total = ndimage.gaussian_filter(np.where(mask, image, 0.0).astype(np.float64), sigma)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 1e-6)


def _erode(mask: np.ndarray) -> np.ndarray:
    size = 2 * _EDGE_PX + 1
    return ndimage.binary_erosion(mask, np.ones((size, size), bool))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / norm if norm else 0.0


# --- applying and recording -----------------------------------------------------------


def _correct(
    scene: Scene,
    frame: Frame,
    folder: Path,
    *,
    found: ShiftEstimate,
    options: CoregistrationOptions,
) -> Frame:
    """Move a frame and its mask onto the target where that is due; record it either way."""
    reason, shift = _reason_to_keep(found, options), found.shift
    if reason or shift is None:
        return _record(frame, found, reason)
    LOG.info("%s %s: moved by %s px", scene.id, frame.date, _rounded(shift))
    name = f"reference_{frame.date}" if frame.role == "reference" else frame.date
    path = folder / "coregistered" / f"{name}.tif"
    mask = folder / "coregistered" / "masks" / f"{name}.tif"
    shift_raster(frame.path, path, scene.grid, shift=shift, resampling=Resampling.cubic, nodata=0)
    shift_raster(
        require_mask(frame),
        mask,
        scene.grid,
        shift=shift,
        resampling=Resampling.nearest,
        nodata=NODATA,
    )
    moved = replace(frame, path=path, mask=mask, checksum=raster.sha256(path))
    return _record(moved, found, "", applied=True)


def _reason_to_keep(found: ShiftEstimate, options: CoregistrationOptions) -> str:
    if found.shift is None:
        return found.note
    if found.reliability < options.min_reliability:
        return f"not reliable: {found.reliability:.2f}, {options.min_reliability:g} needed"
    length = _length(found.shift)
    if length > options.max_shift_px:
        return f"beyond max_shift_px: {length:.2f} > {options.max_shift_px:g}"
    if length <= options.min_shift_px:
        return found.note or f"not above min_shift_px: {length:.2f} <= {options.min_shift_px:g}"
    return ""


def _record(frame: Frame, found: ShiftEstimate, note: str, *, applied: bool = False) -> Frame:
    facts: dict[str, Any] = {
        "unveil:shift_px": _rounded(found.shift),
        "unveil:shift_reliability": round(found.reliability, 3),
        "unveil:shift_applied": applied,
        "unveil:shift_note": note,
    }
    return replace(frame, facts=frame.facts | facts)


def _rounded(shift: tuple[float, float] | None) -> list[float] | None:
    return None if shift is None else [round(value, 3) + 0.0 for value in shift]


def _length(shift: tuple[float, float]) -> float:
    return float(np.hypot(*shift))
