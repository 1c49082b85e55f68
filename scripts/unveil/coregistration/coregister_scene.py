"""The coregistration stage: sub-pixel shifts between the frames of a scene.

Every frame is measured against one anchor, the clearest frame, because the target is
cloudy. Where the target can be measured too, shifts are expressed relative to the target;
the target itself is never resampled, for predictions are written on its grid. A shift is
that of the frame's *content*: ``(1, 0)`` means it lies one row too far south.

Model: one translation per frame, measured as :mod:`unveil.coregistration.estimate` says, in
blocks that are spread over where both images are clear. An estimate that is not reliable leaves
the frame where it is, and the reason is recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.crs import CRS
from rasterio.windows import Window

from unveil import raster
from unveil.bands import BANDS
from unveil.coregistration.estimate import ShiftEstimate, View, estimate_shift, view_of
from unveil.coregistration.resample import shift_image, shift_mask, shift_veil
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

BLOCK_PX = 256
MAX_BLOCKS = 4
MAX_BANDS = 4
AUTO = "auto"
BEYOND_PX = 3.0
"""Shifts beyond ``max_shift_px`` by as much are still found, so that they are known for errors."""
DEGREE_M = 111_195.0
"""Metres of a degree on a sphere of 6371 km."""
STILL = ShiftEstimate((0.0, 0.0), 1.0)
ANCHOR = replace(STILL, note="the anchor")


@dataclass(frozen=True)
class CoregistrationOptions:
    """Settings of the coregistration stage.

    Attributes:
        band: band that shifts are estimated on (the scene's first where it lacks it); ``auto``:
            all, at most four, of the finest resolution that the scene has.
        min_shift_px: shifts up to this are recorded but not applied.
        max_shift_px: shifts of more are taken for an error and not applied.
        min_reliability: reliability from which an estimate counts; docs/coregistration.md says
            how it was chosen.
    """

    band: str = AUTO
    min_shift_px: float = 0.2
    max_shift_px: float = 5.0
    min_reliability: float = 0.4


def coregister_scene(scene: Scene, folder: Path, options: CoregistrationOptions) -> Scene:
    """Measure the shift of every optical frame, apply the large ones, record all.

    Writes ``coregistered/DATE.tif``, ``coregistered/masks/DATE.tif`` and, where there is one,
    ``coregistered/veils/DATE.tif`` for frames that are moved (``reference_DATE`` for a paired
    reference). Frame facts:
    ``unveil:shift_px`` ([dy, dx], south and east, or null), ``unveil:shift_m`` ([dx, dy], east
    and north, null without a georeference), ``unveil:shift_reliability``,
    ``unveil:shift_windows`` (that agree), ``unveil:shift_similarity`` ([before, after]),
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
    gauge = Gauge(scene, anchor, options)
    target = _measure_target(scene, gauge, options)
    truth, done = PROTOCOLS[scene.protocol], []
    facts = {
        "anchor": anchor.date,
        "bands": list(gauge.bands),
        "target_shift_px": _rounded(target.shift),
        "target_note": target.note,
    }
    for frame in scene.frames:
        if frame.role == "target":
            done.append(_record(scene.grid, frame, STILL, "grid of the scene"))
        elif frame.role == "context":
            found = _measure_to_target(frame, gauge, target)
            done.append(_correct(scene, frame, folder, found=found, options=options))
        elif frame.role == "reference" and not truth.exact:
            found = _measure_truth(scene, frame, options)
            done.append(_correct(scene, frame, folder, found=found, options=options))
            facts["truth_clear_by"] = _clear_by(scene)
        elif frame.role == "reference":
            done.append(_record(scene.grid, frame, STILL, "made with the target"))
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


def choose_bands(bands: Sequence[str], wanted: str) -> tuple[str, ...]:
    """Return the bands that shifts are read from: one that is wanted, or the sharpest."""
    if wanted != AUTO:
        return (wanted if wanted in bands else bands[0],)
    finest = min(BANDS[band].resolution_m for band in bands)
    return tuple(band for band in bands if BANDS[band].resolution_m == finest)[:MAX_BANDS]


# --- measuring ------------------------------------------------------------------------


class Gauge:
    """Measures frames against an anchor, of which each block is prepared once."""

    def __init__(self, scene: Scene, anchor: Frame, options: CoregistrationOptions):
        """Prepare to measure frames of a scene against one of them."""
        self.grid, self.anchor = scene.grid, anchor
        self.bands = choose_bands(scene.bands, options.band)
        self.reach_px = options.max_shift_px + BEYOND_PX
        self._clear = _decimated_clear(anchor)
        self._views: dict[tuple[tuple[int, int], ...], View] = {}

    def measure(self, frame: Frame) -> ShiftEstimate:
        """Return the shift of a frame relative to the anchor."""
        lacking = {*self.bands} - {*self.anchor.bands} | {*self.bands} - {*frame.bands}
        if lacking:
            return ShiftEstimate(None, note=f"a frame has no band {', '.join(sorted(lacking))}")
        blocks = choose_blocks(self.grid, self._clear, _decimated_clear(frame))
        key = tuple((block.row_off, block.col_off) for block in blocks)
        if key not in self._views:
            self._views = {key: read_view(self.anchor, self.bands, blocks)}
        view = read_view(frame, self.bands, blocks)
        return estimate_shift(self._views[key], view, reach_px=self.reach_px)


def read_view(frame: Frame, bands: Sequence[str], blocks: Sequence[Window]) -> View:
    """Read of a frame what shifts are read from."""
    images = np.stack([read_reflectance(frame, bands, block) for block in blocks])
    classes = np.stack([read_mask(frame, block)[0] for block in blocks])
    return view_of(images, is_clear(classes) & np.isfinite(images).all(axis=1))


def _measure_target(scene: Scene, gauge: Gauge, options: CoregistrationOptions) -> ShiftEstimate:
    """Measure the target against the anchor; (0, 0) with a note where that fails."""
    if gauge.anchor.role == "target":
        return replace(STILL, note="the target is the anchor")
    found = gauge.measure(scene.target)
    if usable(found, options):
        return found
    reason = found.note or f"reliability {found.reliability:.2f}, shift {_rounded(found.shift)}"
    note = f"target not measured ({reason}); taken to lie on the anchor's grid"
    return ShiftEstimate((0.0, 0.0), found.reliability, note)


def usable(found: ShiftEstimate, options: CoregistrationOptions) -> bool:
    """Return whether an estimate is reliable and of a believable size."""
    return (
        found.shift is not None
        and found.reliability >= options.min_reliability
        and _length(found.shift) <= options.max_shift_px
    )


def _measure_to_target(frame: Frame, gauge: Gauge, target: ShiftEstimate) -> ShiftEstimate:
    """Return the shift of a frame relative to the target, by way of the anchor."""
    assert target.shift is not None  # as _measure_target leaves it
    if frame == gauge.anchor:
        moved = any(target.shift)
        found = replace(target, shift=(0.0, 0.0), note="") if moved else ANCHOR
    else:
        found = gauge.measure(frame)
    if found.shift is None:
        return found
    dy, dx = (own - base for own, base in zip(found.shift, target.shift, strict=True))
    return replace(found, shift=(dy, dx))


def _measure_truth(scene: Scene, truth: Frame, options: CoregistrationOptions) -> ShiftEstimate:
    """Return the shift of a truth relative to the target, by the fixed masks of both."""
    scored = require_occlusion(scene).path
    target, truth = (replace(frame, mask=scored) for frame in (scene.target, truth))
    return Gauge(scene, target, options).measure(truth)


def _clear_by(scene: Scene) -> str:
    """Say what tells the clear pixels by which a truth is laid onto its target."""
    judged = require_occlusion(scene).facts.get(JUDGED, [])
    if not judged:
        return "delivered masks of both dates"
    return f"detectors with default settings, as no mask of {' and '.join(judged)} is delivered"


def choose_blocks(grid: Grid, *clear: np.ndarray) -> list[Window]:
    """Return at most four blocks of one size, spread over where all images are clear.

    Args:
        grid: grid of the scene.
        clear: decimated clear masks ``(h, w)`` bool of the images, all of one shape.
    """
    sizes = [min(BLOCK_PX, size) for size in grid.shape]
    counts = [whole // size for whole, size in zip(grid.shape, sizes, strict=True)]
    tops, lefts = (
        np.linspace(0, whole - size, count).round().astype(int)
        for whole, size, count in zip(grid.shape, sizes, counts, strict=True)
    )
    both = np.logical_and.reduce(clear)
    blocks = [Window(int(left), int(top), sizes[1], sizes[0]) for top in tops for left in lefts]
    shares = np.array([_share(both, block, grid) for block in blocks])
    good = np.flatnonzero(shares >= shares.max() / 2)
    picked = good[np.unique(np.linspace(0, len(good) - 1, MAX_BLOCKS).round().astype(int))]
    return [blocks[number] for number in picked]


def _share(clear: np.ndarray, block: Window, grid: Grid) -> float:
    """Return the share of a block that is clear by a decimated mask."""
    (top, bottom), (left, right) = block.toranges()
    rows, cols = (size / whole for size, whole in zip(clear.shape, grid.shape, strict=True))
    part = clear[
        int(top * rows) : int(np.ceil(bottom * rows)), int(left * cols) : int(np.ceil(right * cols))
    ]
    return float(part.mean()) if part.size else 0.0


def _decimated_clear(frame: Frame) -> np.ndarray:
    """Return a small ``(h, w)`` bool raster of clear pixels, the same shape for all frames."""
    return is_clear(raster.read_decimated(require_mask(frame))[0])


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
        return _record(scene.grid, frame, found, reason)
    LOG.info("%s %s: moved by %s px", scene.id, frame.date, _rounded(shift))
    name = f"reference_{frame.date}" if frame.role == "reference" else frame.date
    path = folder / "coregistered" / f"{name}.tif"
    mask = folder / "coregistered" / "masks" / f"{name}.tif"
    shift_image(frame.path, path, scene.grid, shift)
    shift_mask(require_mask(frame), mask, scene.grid, shift)
    veil = None
    if frame.veil:
        veil = folder / "coregistered" / "veils" / f"{name}.tif"
        shift_veil(frame.veil, veil, scene.grid, shift)
    moved = replace(frame, path=path, mask=mask, veil=veil, checksum=raster.sha256(path))
    return _record(scene.grid, moved, found, "", applied=True)


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


def _record(
    grid: Grid, frame: Frame, found: ShiftEstimate, note: str, *, applied: bool = False
) -> Frame:
    facts: dict[str, Any] = {
        "unveil:shift_px": _rounded(found.shift),
        "unveil:shift_m": _rounded(metres_of(found.shift, grid)),
        "unveil:shift_reliability": round(found.reliability, 3),
        "unveil:shift_windows": found.windows,
        "unveil:shift_similarity": _rounded(found.similarity),
        "unveil:shift_applied": applied,
        "unveil:shift_note": note,
    }
    return replace(frame, facts=frame.facts | facts)


def metres_of(shift: tuple[float, float] | None, grid: Grid) -> tuple[float, float] | None:
    """Return a shift as metres east and north; None where the grid does not tell.

    Degrees count as on a sphere, at the latitude of the scene's middle.
    """
    if shift is None or not grid.crs:
        return None
    crs = CRS.from_user_input(grid.crs)
    a, b, _, d, e, _ = grid.transform
    east, north = a * shift[1] + b * shift[0], d * shift[1] + e * shift[0]
    if crs.is_geographic:
        _, latitude = grid.affine @ (grid.width / 2, grid.height / 2)
        return east * DEGREE_M * float(np.cos(np.radians(latitude))), north * DEGREE_M
    unit = crs.linear_units_factor[1]
    return east * unit, north * unit


def _rounded(shift: tuple[float, float] | None) -> list[float] | None:
    return None if shift is None else [round(value, 3) + 0.0 for value in shift]


def _length(shift: tuple[float, float]) -> float:
    return float(np.hypot(*shift))
