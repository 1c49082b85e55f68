"""The masks stage: one class raster and cloud probability for every optical frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.enums import Resampling

from unveil import classes as classmap
from unveil import raster
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW, SNOW, UNKNOWN_PROBABILITY
from unveil.errors import InputError
from unveil.masks.detectors import s2cloudless
from unveil.masks.detectors.base import Detector, Votes
from unveil.masks.detectors.registry import DETECTORS
from unveil.masks.options import MaskOptions
from unveil.raster import Grid
from unveil.scene import HIDDEN_AROUND, Frame, Scene, read_reflectance

OPTICAL_ROLES = ("target", "context", "reference")
MASK_BANDS = ("CLASS", "CLOUD_PROBABILITY")
FIXED = MaskOptions(dilate_px=0)
"""How clouds are found where scenes are made, whatever the config says of this stage."""


def mask_scene(scene: Scene, folder: Path, options: MaskOptions) -> Scene:
    """Write a mask for every optical frame and return the scene with masks and covers.

    Nodata (0 or NaN in any band) wins over cloud, cloud over shadow, shadow over snow.
    A target that says so (:data:`unveil.scene.HIDDEN_AROUND`) is hidden farther around its clouds.
    Frame facts: ``unveil:mask_sources`` (detectors used), ``unveil:mask_notes``,
    ``eo:cloud_cover`` and ``unveil:shadow_cover`` (percent of valid pixels, grown as
    written).

    Args:
        scene: an assembled scene; ``frame.mask`` is what the source delivered, if anything.
        folder: folder of the scene; ``masks/DATE.tif`` and ``masks/reference_DATE.tif`` are
            written in it.
        options: settings.

    Raises:
        InputError: if a raster is damaged or holds impossible values, or if no detector can
            judge a frame.
    """
    done = []
    for frame in scene.frames:
        optical = frame.role in OPTICAL_ROLES
        done.append(_mask_frame(scene, frame, folder, options) if optical else frame)
    return replace(scene, frames=tuple(done))


def detect_clouds(reflectance: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return ``(H, W)`` classes of one L1C image by s2cloudless, without growth or shadow.

    Enough to rank the dates of a place before its scene is assembled; with :data:`FIXED`
    settings, so that those of this stage choose no dates.

    Args:
        reflectance: ``(B, H, W)`` float32, NaN where nodata.
        bands: names of its bands, at least ``S2CLOUDLESS10``.
    """
    cloud = s2cloudless.cloud_mask(
        s2cloudless.cloud_probability(reflectance, bands),
        threshold=FIXED.cloud_probability,
        average_over=FIXED.average_over,
    )
    none = np.zeros_like(cloud)
    missing = ~np.isfinite(reflectance).all(axis=0)
    return merge(cloud=cloud, shadow=none, snow=none, missing=missing)


def choose_detectors(
    frame: Frame, level: str, options: MaskOptions
) -> tuple[list[type[Detector]], list[str]]:
    """Return the detectors that apply to a frame, and why the others do not."""
    used, refused = [], []
    for detector in (DETECTORS[name] for name in DETECTORS if name in options.detectors):
        reason = detector.refusal(frame, level)
        if reason:
            refused.append(reason)
        elif detector.alone:
            return [detector], []
        else:
            used.append(detector)
    return used, refused


def why_unjudged(bands: Sequence[str], level: str, *, delivered: bool) -> str:
    """Return why no detector can judge an image; empty when one can.

    Args:
        bands: names of its bands.
        level: ``L1C`` or ``L2A``.
        delivered: whether its source delivers a mask of it.
    """
    frame = Frame("", "context", Path(), tuple(bands), Path() if delivered else None)
    used, reasons = choose_detectors(frame, level, FIXED)
    return "" if used else "; ".join(reasons)


def judge_frame(frame: Frame, grid: Grid, level: str) -> np.ndarray:
    """Return the ``(H, W)`` uint8 classes of a frame, not grown, by :data:`FIXED` settings.

    Args:
        frame: an optical frame without a delivered mask.
        grid: its grid.
        level: ``L1C`` or ``L2A``.

    Raises:
        InputError: if no detector can judge it.
    """
    classes, *_ = _classify(frame, grid, level, FIXED)
    return classes


def _classify(
    frame: Frame, grid: Grid, level: str, options: MaskOptions
) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Return classes, percent of cloud, the labels of the detectors, and their notes."""
    used, notes = choose_detectors(frame, level, options)
    if not used:
        raise InputError(
            f"nothing can judge its clouds ({'; '.join(notes)})",
            file=frame.path,
            field=frame.date,
            remedy="deliver a mask, or name a detector in masks.detectors that applies",
        )
    detectors = [detector(frame, grid, options) for detector in used]
    votes = _collect(frame, grid, detectors)
    for detector in detectors:
        notes += detector.settle(votes)
    classes = merge(cloud=votes.cloud, shadow=votes.shadow, snow=votes.snow, missing=votes.missing)
    classes = classmap.dilate(classes, max((d.growth_px for d in detectors), default=0))
    votes.percent[votes.missing] = UNKNOWN_PROBABILITY
    return classes, votes.percent, [detector.label for detector in detectors], notes


def _mask_frame(scene: Scene, frame: Frame, folder: Path, options: MaskOptions) -> Frame:
    classes, percent, labels, notes = _classify(frame, scene.grid, scene.level, options)
    cloud, shadow = _percent(classes, CLOUD), _percent(classes, SHADOW)
    classes = classmap.dilate(classes, frame.facts.get(HIDDEN_AROUND, 0))
    name = f"reference_{frame.date}" if frame.role == "reference" else frame.date
    path = folder / "masks" / f"{name}.tif"
    raster.write_cog(
        path,
        np.stack([classes, percent]),
        scene.grid,
        descriptions=MASK_BANDS,
        nodata=NODATA,
        overviews=Resampling.mode,
    )
    facts = {
        "unveil:mask_sources": labels,
        "unveil:mask_notes": notes,
        "eo:cloud_cover": cloud,
        "unveil:shadow_cover": shadow,
    }
    return replace(frame, mask=path, facts=frame.facts | facts)


def _collect(frame: Frame, grid: Grid, detectors: Sequence[Detector]) -> Votes:
    """Ask detectors block by block; a halo makes the blocks agree with the whole image."""
    votes, asked = Votes.none(grid.shape), _share_out(detectors)
    step = math.lcm(*(detector.step for detector in detectors))
    # Whole coarse pixels, and windows that start on one.
    halo = step * -(-max((d.halo_px for d in detectors), default=0) // step)
    for window in grid.windows(step * (raster.BLOCK // step)):
        outer = grid.with_halo(window, halo)
        inner = raster.within(window, outer)
        here = window.toslices()
        data = read_reflectance(frame, frame.bands, outer)
        votes.missing[here] = ~np.isfinite(data).all(axis=0)[inner]
        for detector, fields in zip(detectors, asked, strict=True):
            found = detector.vote(data, outer, fields)
            votes.missing[here] |= found.missing[inner]
            for field in fields - {"missing"}:
                getattr(votes, field)[here] = getattr(found, field)[inner]
    return votes


def _share_out(detectors: Sequence[Detector]) -> list[frozenset[str]]:
    """Return what each detector is asked for: what it can tell and none before it could."""
    asked: list[frozenset[str]] = []
    for detector in detectors:
        asked.append(detector.tells.difference(*asked))
    return asked


def merge(
    *, cloud: np.ndarray, shadow: np.ndarray, snow: np.ndarray, missing: np.ndarray
) -> np.ndarray:
    """Merge bool votes ``(H, W)`` to uint8 classes: nodata, cloud, shadow, snow, clear."""
    classes = np.full(cloud.shape, CLEAR, np.uint8)
    for code, where in ((SNOW, snow), (SHADOW, shadow), (CLOUD, cloud), (NODATA, missing)):
        classes[where] = code
    return classes


def _percent(classes: np.ndarray, code: int) -> float:
    valid = int(np.count_nonzero(classes != NODATA))
    return round(100 * int(np.count_nonzero(classes == code)) / valid, 2) if valid else 0.0
