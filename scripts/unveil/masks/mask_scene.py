"""The masks stage: classes, cloud probability and the excess of cloud and haze of every frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from unveil import classes as classmap
from unveil import raster
from unveil.bands import CLEAR, CLOUD, NODATA, SHADOW, SNOW, UNKNOWN_PROBABILITY
from unveil.errors import InputError
from unveil.masks.detectors import s2cloudless, ukis
from unveil.masks.detectors.base import Detector, Votes
from unveil.masks.detectors.coarse import pixel_metres
from unveil.masks.detectors.registry import DETECTORS
from unveil.masks.detectors.source import DeliveredMask
from unveil.masks.mask_file import count_classes, cover_facts, mask_writer, percent_of
from unveil.masks.options import MaskOptions
from unveil.masks.series import SERIES, hide_what_is_brighter, release_what_stays
from unveil.masks.veil import estimate_veils
from unveil.raster import Grid
from unveil.scene import DECLARED_CLEAR, HIDDEN_AROUND, Frame, Scene, read_reflectance

OPTICAL_ROLES = ("target", "context", "reference")
VOTED = frozenset(("cloud", "shadow"))
"""Fields that several detectors decide together."""
FIXED = MaskOptions(
    detectors=("source", "s2cloudless", "thresholds"),
    combine="first",
    target_growth_m=0,
    context_growth_m=0,
)
"""How clouds are found where scenes are made, whatever the config says of this stage."""
LEAST_GROWTH_PX = 2
"""A border is known to a pixel or two, however large these are."""
NEXT_TO_NOTHING, NEARLY_ALL = 0.05, 0.9
"""Shares of an image with which a delivered mask and another detector contradict each other."""


def mask_scene(scene: Scene, folder: Path, options: MaskOptions) -> Scene:
    """Write masks and veils of optical frames and return the scene with them and their covers.

    Nodata (0 or NaN in any band) wins over cloud, cloud over shadow, shadow over snow.
    A target that says so (:data:`unveil.scene.HIDDEN_AROUND`) is hidden farther around its clouds.
    Frame facts: ``unveil:mask_sources`` (detectors used), ``unveil:mask_notes``,
    ``unveil:mask_votes`` (percent of valid pixels that each called cloud and shadow, not grown),
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
    masked = replace(scene, frames=tuple(done))
    if SERIES not in options.detectors:
        return estimate_veils(masked, folder)
    return hide_what_is_brighter(estimate_veils(release_what_stays(masked), folder))


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


def detect_clouds_and_shadows(reflectance: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """Return ``(H, W)`` classes of one L1C image: cloud of s2cloudless or ukis, shadow of ukis.

    For images that are trained on, where a missed cloud costs more than a lost clear pixel.

    Args:
        reflectance: ``(B, H, W)`` float32, NaN where nodata.
        bands: names of its bands, those of :func:`detect_clouds` and the visible ones.
    """
    found = detect_clouds(reflectance, bands)
    second = ukis.classes_of(reflectance, bands, level="L1C")
    cloud = (found == CLOUD) | (second == ukis.CLOUD)
    none = np.zeros_like(cloud)
    return merge(cloud=cloud, shadow=second == ukis.SHADOW, snow=none, missing=found == NODATA)


def choose_detectors(
    frame: Frame, level: str, options: MaskOptions
) -> tuple[list[type[Detector]], list[str]]:
    """Return the detectors that apply to a frame, and why the others do not.

    Somebody's word that a date is clear is not voted on.
    """
    believed = options.combine == "first" or DECLARED_CLEAR in frame.facts
    used, refused = [], []
    for detector in (DETECTORS[name] for name in DETECTORS if name in options.detectors):
        reason = detector.refusal(frame, level)
        if reason:
            refused.append(reason)
        elif detector.alone and believed:
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
    return _classify(frame, grid, level, FIXED).classes


@dataclass(frozen=True)
class _Found:
    """The mask of a frame.

    Attributes:
        classes: ``(H, W)`` uint8, grown.
        percent: ``(H, W)`` uint8, probability of cloud, 255 where unknown.
        votes: detector, as facts call it -> field -> percent of valid pixels.
        notes: what detectors say.
    """

    classes: np.ndarray
    percent: np.ndarray
    votes: dict[str, dict[str, float]]
    notes: list[str]


def _classify(frame: Frame, grid: Grid, level: str, options: MaskOptions) -> _Found:
    used, notes = choose_detectors(frame, level, options)
    if not used:
        raise InputError(
            f"nothing can judge its clouds ({'; '.join(notes)})",
            file=frame.path,
            field=frame.date,
            remedy="deliver a mask, or name a detector in masks.detectors that applies",
        )
    asked = _share_out(used, together=options.combine == "consensus")
    notes += [f"{d.name} not asked: others tell as much" for d in used if not asked[d]]
    fields = {d(frame, grid, options, level=level): asked[d] for d in used if asked[d]}
    votes, counts = _collect(frame, grid, fields)
    if at_odds := _at_odds(counts, int(np.count_nonzero(~votes.missing))):
        notes += [
            f"{d.name} not heard: all is cloud to it, and clear as delivered" for d in at_odds
        ]
        fields = {detector: asked for detector, asked in fields.items() if detector not in at_odds}
        votes, counts = _collect(frame, grid, fields)
    for detector in fields:
        notes += detector.settle(votes)
    classes = merge(cloud=votes.cloud, shadow=votes.shadow, snow=votes.snow, missing=votes.missing)
    classes = classmap.dilate(classes, _growth_px(options.growth_m(frame.role), grid))
    votes.percent[votes.missing] = UNKNOWN_PROBABILITY
    valid = int(np.count_nonzero(~votes.missing))
    shares = {
        detector.label: {
            field: percent_of(count, valid) for field, count in counts[detector].items()
        }
        for detector in fields
    }
    return _Found(classes, votes.percent, shares, notes)


def _mask_frame(scene: Scene, frame: Frame, folder: Path, options: MaskOptions) -> Frame:
    found = _classify(frame, scene.grid, scene.level, options)
    classes = classmap.dilate(found.classes, frame.facts.get(HIDDEN_AROUND, 0))
    name = f"reference_{frame.date}" if frame.role == "reference" else frame.date
    path = folder / "masks" / f"{name}.tif"
    with mask_writer(path, scene.grid) as writer:
        writer.write(np.stack([classes, found.percent]))
    facts = {
        "unveil:mask_sources": list(found.votes),
        "unveil:mask_votes": found.votes,
        "unveil:mask_notes": found.notes,
        **cover_facts(count_classes(found.classes)),
    }
    return replace(frame, mask=path, facts=frame.facts | facts)


def _collect(
    frame: Frame, grid: Grid, detectors: dict[Detector, frozenset[str]]
) -> tuple[Votes, dict[Detector, dict[str, int]]]:
    """Ask detectors block by block; a halo makes the blocks agree with the whole image.

    Args:
        frame: an optical frame.
        grid: its grid.
        detectors: each with the fields that it is asked for.

    Returns:
        What at least half of those who were asked say, and how many valid pixels each found.
    """
    votes = Votes.none(grid.shape)
    counts = {
        detector: dict.fromkeys(sorted(fields & VOTED), 0) for detector, fields in detectors.items()
    }
    voters = {field: sum(field in fields for fields in detectors.values()) for field in VOTED}
    step = math.lcm(*(detector.step for detector in detectors))
    # Whole coarse pixels, and windows that start on one.
    halo = step * -(-max(d.halo_px for d in detectors) // step)
    for window in grid.windows(step * (raster.BLOCK // step)):
        outer = grid.with_halo(window, halo)
        inner = raster.within(window, outer)
        here = window.toslices()
        data = read_reflectance(frame, frame.bands, outer)
        votes.missing[here] = ~np.isfinite(data).all(axis=0)[inner]
        tally = {field: np.zeros(votes.missing[here].shape, np.uint8) for field in VOTED}
        for detector, fields in detectors.items():
            found = detector.vote(data, outer, fields)
            votes.missing[here] |= found.missing[inner]
            for field in fields - VOTED - {"missing"}:
                getattr(votes, field)[here] = getattr(found, field)[inner]
            for field in fields & VOTED:
                said = getattr(found, field)[inner]
                tally[field] += said
                counts[detector][field] += int(np.count_nonzero(said & ~votes.missing[here]))
        for field, number in tally.items():
            getattr(votes, field)[here] = (number > 0) & (2 * number >= voters[field])
    return votes, counts


def _share_out(
    detectors: Sequence[type[Detector]], *, together: bool
) -> dict[type[Detector], frozenset[str]]:
    """Return what each is asked for: what none before it can tell, and what all decide together."""
    asked: dict[type[Detector], frozenset[str]] = {}
    for detector in detectors:
        new = detector.tells.difference(*asked.values())
        votes = together and not detector.last_resort
        asked[detector] = new | (detector.tells & VOTED if votes else frozenset())
    return asked


def merge(
    *, cloud: np.ndarray, shadow: np.ndarray, snow: np.ndarray, missing: np.ndarray
) -> np.ndarray:
    """Merge bool votes ``(H, W)`` to uint8 classes: nodata, cloud, shadow, snow, clear."""
    classes = np.full(cloud.shape, CLEAR, np.uint8)
    for code, where in ((SNOW, snow), (SHADOW, shadow), (CLOUD, cloud), (NODATA, missing)):
        classes[where] = code
    return classes


def _at_odds(counts: Mapping[Detector, Mapping[str, int]], valid: int) -> list[Detector]:
    """Return the detectors to which all is cloud where the delivered mask hides next to nothing.

    One of the two is wrong altogether, and a network is on ground that it does not know.
    """
    hidden = [sum(found.values()) for d, found in counts.items() if isinstance(d, DeliveredMask)]
    if not valid or not hidden or hidden[0] > NEXT_TO_NOTHING * valid:
        return []
    return [d for d, found in counts.items() if found.get("cloud", 0) >= NEARLY_ALL * valid]


def _growth_px(metres: float, grid: Grid) -> int:
    """Return the fewest whole pixels that are no less than some metres, two or more of them."""
    pixels = math.ceil(round(metres / pixel_metres(grid), 3))
    return max(pixels, LEAST_GROWTH_PX) if pixels else 0
