"""Score one prediction of one scene: the metrics stage's work for one row of the table.

Which pixels count:

- the truth must be known: the reference has data in every scored band, its own mask (if it
  has one) shows the surface, and the occlusion raster is not 255;
- the model must have answered: a pixel without data in any scored band is left out of the
  errors and shown in the metric ``answered``, the fraction of a region's pixels that have an
  answer. Compare errors of models only together with it.

Bands are those that prediction and reference share; ``n_bands`` says how many, the rows
per band say which. The reading is window by window: memory does not grow with the scene.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import BANDS, NODATA, sort_bands
from unveil.errors import InputError, SceneSkipped
from unveil.metrics.strata import (
    KEPT_REGIONS,
    REGIONS,
    TRUTH_REGIONS,
    nearest_look,
    region_masks,
)
from unveil.metrics.streaming import HALO, Accumulator, Core, Score
from unveil.scene import (
    Frame,
    Scene,
    is_clear,
    is_occluded,
    read_mask,
    read_occlusion,
    read_reflectance,
    read_truth,
)

logger = logging.getLogger(__name__)

COLUMNS = (
    "scene",
    "model",
    "protocol",
    "cloud_cover",
    "region",
    "band",
    "metric",
    "value",
    "unit",
    "n_pixels",
)
BLOCK = 2 * raster.BLOCK
"""Side of the windows: with a halo, a larger window rereads fewer blocks of the files."""
MAX_DAYS = 3653
"""Longest gap to a clear look that is told apart, in days (ten years)."""


@dataclass(frozen=True)
class Patch:
    """One window of everything that scoring looks at; ``core`` is the part that counts.

    Attributes:
        prediction: ``(B, H, W)`` float32 reflectance, NaN without an answer.
        truth: ``(B, H, W)`` float32 reflectance, NaN where nodata.
        target: ``(B, H, W)`` float32 reflectance of the cloudy frame; None where it lacks
            one of the bands.
        known: ``(H, W)`` bool, the truth is known.
        occlusion: ``(H, W)`` uint8 classes of the target.
        look: ``(H, W)`` float32 days to the nearest clear look.
        core: rows and columns without the halo.
    """

    prediction: np.ndarray
    truth: np.ndarray
    target: np.ndarray | None
    known: np.ndarray
    occlusion: np.ndarray
    look: np.ndarray
    core: Core

    @property
    def answered(self) -> np.ndarray:
        """``(H, W)`` bool: the model gave every scored band."""
        return np.isfinite(self.prediction).all(axis=0)


class Census:
    """Counts of pixels: cover, answers, gaps to a clear look, and copies of the truth."""

    def __init__(self) -> None:
        self.known = dict.fromkeys(REGIONS, 0)
        self.answered = dict.fromkeys(REGIONS, 0)
        self.valid = self.hidden = 0
        self.differing = 0
        self.days = np.zeros(MAX_DAYS + 1, np.int64)

    def update(self, patch: Patch, regions: dict[str, np.ndarray]) -> None:
        """Add the core of one window."""
        core = patch.core
        occlusion, known = patch.occlusion[core], patch.known[core]
        answered = patch.answered[core] & known
        self.valid += int(np.count_nonzero(occlusion != NODATA))
        self.hidden += int(np.count_nonzero(is_occluded(occlusion)))
        for name in REGIONS:
            self.known[name] += int(np.count_nonzero(regions[name][core] & known))
            self.answered[name] += int(np.count_nonzero(regions[name][core] & answered))
        unlike = (patch.prediction[:, *core] != patch.truth[:, *core]).any(axis=0)
        hidden = regions["occluded"][core]
        self.differing += int(np.count_nonzero(unlike & hidden & answered))
        look = patch.look[core][hidden & known]
        look = np.minimum(look[np.isfinite(look)], MAX_DAYS).astype(np.int64)
        self.days += np.bincount(look, minlength=MAX_DAYS + 1)

    @property
    def cloud_cover(self) -> float:
        """Fraction of the target's valid pixels under cloud or shadow."""
        return self.hidden / self.valid if self.valid else 0.0

    @property
    def days_to_clear_look(self) -> float | None:
        """Median days to the nearest clear look of the occluded pixels that have one."""
        total = int(self.days.sum())
        if not total:
            return None
        return float(np.searchsorted(np.cumsum(self.days), (total + 1) // 2))


def score_scene(
    scene: Scene, prediction: str | Path, *, model: str, block: int = BLOCK
) -> list[dict]:
    """Score a prediction against the truth of its scene.

    Args:
        scene: a scene ready for analysis, with its truth.
        prediction: uint16 raster, reflectance x 10000, nodata 0, bands described by ESA
            name, on the grid of the scene.
        model: id of the model, for the rows.
        block: side of the windows in pixels.

    Returns:
        Rows with the keys :data:`COLUMNS`. ``value`` is None where a metric is undefined
        or its region has no pixels (``n_pixels`` 0); it is never NaN or infinite.

    Raises:
        SceneSkipped: if the scene has no reference, or no truth is known in it.
        InputError: if a file is bad, the prediction does not fit the scene, or the truth
            has leaked into the inputs or the prediction.
    """
    prediction = Path(prediction)
    references = scene.with_role("reference")
    if not references:
        raise SceneSkipped("no reference: nothing to compare the prediction with")
    refuse_leakage(scene)
    available = _prediction_bands(prediction, scene)
    bands = _common_bands(prediction, available, references[0])
    against_truth = Accumulator(bands, TRUTH_REGIONS)
    against_target = Accumulator(bands, KEPT_REGIONS)
    census = Census()
    for patch in _patches(scene, prediction, (available, bands), block):
        regions = region_masks(patch.occlusion, np.isfinite(patch.look))
        census.update(patch, regions)
        valid = patch.known & patch.answered
        against_truth.update(patch.prediction, patch.truth, valid, regions, core=patch.core)
        if patch.target is not None:
            kept = valid & np.isfinite(patch.target).all(axis=0)
            against_target.update(patch.prediction, patch.target, kept, regions, core=patch.core)
    if not census.known["all"]:
        raise SceneSkipped("the truth is not known at any pixel: all nodata or cloudy")
    _refuse_copies(scene, prediction, census)
    scores = [*against_truth.scores(), *against_target.scores(), *_census_scores(census, bands)]
    head = {"scene": scene.id, "model": model, "protocol": scene.protocol}
    return [_row(head, census.cloud_cover, score) for score in scores]


def refuse_leakage(scene: Scene) -> None:
    """Refuse a scene whose context gives the truth away.

    Raises:
        InputError: if the reference is among the context frames, or a context frame is of
            the day of the target or of the reference.
    """
    reference = scene.with_role("reference")[0]
    days = {scene.target.date: "target", reference.date: "reference"}
    for frame in scene.context:
        if reference.checksum and frame.checksum == reference.checksum:
            raise InputError(
                f"the reference of scene {scene.id} is among its context frames",
                file=frame.path,
                remedy="remove this frame from the scene's inputs",
            )
        if frame.date in days:
            raise InputError(
                f"a context frame of scene {scene.id} is of the {days[frame.date]}'s day "
                f"{frame.date}",
                file=frame.path,
                field="date",
                remedy="remove this frame from the scene's inputs",
            )


def refuse_trained_places(scene: Scene, trained: Sequence[str], *, weights: str | Path) -> None:
    """Refuse to score a model on a place that its weights were trained on.

    Args:
        scene: the scene.
        trained: places of the weights card.
        weights: the weights, for the message.

    Raises:
        InputError: if the scene's place is among ``trained``.
    """
    if scene.place in trained:
        raise InputError(
            f"these weights were trained on place {scene.place} of scene {scene.id}",
            file=weights,
            field="places",
            remedy="evaluate on other places, or train without this one",
        )


def _refuse_copies(scene: Scene, prediction: Path, census: Census) -> None:
    """Refuse the truth as an input or as an answer; needs something hidden to tell."""
    if not census.answered["occluded"]:
        return
    reference = scene.with_role("reference")[0]
    if reference.checksum and scene.target.checksum == reference.checksum:
        raise InputError(
            f"target and reference of scene {scene.id} are the same raster",
            file=scene.target.path,
            remedy="give the cloudy image as target and the cloud-free one as reference",
        )
    if not census.differing:
        raise InputError(
            f"the prediction equals the reference of scene {scene.id} at every occluded pixel",
            file=prediction,
            remedy="find out how the model saw the truth, and remove the prediction",
        )


def _prediction_bands(path: Path, scene: Scene) -> tuple[str, ...]:
    """Return the bands of a prediction that fits the scene, in file order."""
    with raster.open_raster(path) as dataset:
        grid, names, dtype = raster.grid_of(dataset), dataset.descriptions, dataset.dtypes[0]
    deviation = scene.grid.difference(grid)
    if deviation:
        raise InputError(
            f"not on the grid of scene {scene.id}: {deviation}",
            file=path,
            field="grid",
            remedy="write the prediction on the grid of the scene's target",
        )
    unknown = [str(name) for name in names if name not in BANDS]
    if unknown:
        raise InputError(
            f"band descriptions {', '.join(unknown)} are no Sentinel-2 bands",
            file=path,
            field="band description",
            remedy=f"describe each band by its ESA name ({', '.join(BANDS)})",
        )
    if dtype != "uint16":
        raise InputError(
            f"data type {dtype}",
            file=path,
            field="dtype",
            remedy="write uint16, reflectance x 10000, nodata 0",
        )
    return tuple(names)


def _common_bands(path: Path, available: Sequence[str], reference: Frame) -> tuple[str, ...]:
    bands = sort_bands(set(available) & set(reference.bands))
    if not bands:
        raise InputError(
            f"has bands {', '.join(available)}, the reference has {', '.join(reference.bands)}",
            file=path,
            field="band description",
            remedy="predict at least one band of the reference",
        )
    left_out = sort_bands(set(reference.bands) - set(bands))
    if left_out:
        logger.info(
            "%s: 'all' is over %s; not predicted: %s",
            path,
            ", ".join(bands),
            ", ".join(left_out),
        )
    return bands


def _patches(
    scene: Scene, path: Path, bands: tuple[Sequence[str], Sequence[str]], block: int
) -> Iterator[Patch]:
    """Yield the windows of a scene with their halo; ``bands`` of the file, and scored."""
    available, wanted = bands
    output = Frame(scene.target.date, "prediction", path, tuple(available))
    whole = set(wanted) <= set(scene.target.bands)
    for window in scene.grid.windows(block):
        wide, core = _with_halo(window, scene.grid.shape)
        truth = read_truth(scene, wanted, wide)
        occlusion = read_occlusion(scene, wide)
        yield Patch(
            prediction=read_reflectance(output, wanted, wide),
            truth=truth,
            target=read_reflectance(scene.target, wanted, wide) if whole else None,
            known=_is_known(scene, truth, occlusion, wide),
            occlusion=occlusion,
            look=nearest_look(scene, wide),
            core=core,
        )


def _is_known(scene: Scene, truth: np.ndarray, occlusion: np.ndarray, window: Window) -> np.ndarray:
    """``(H, W)`` bool: truth with data, clear in its own mask, occlusion not 255."""
    own = read_mask(scene.with_role("reference")[0], occlusion.shape, window)[0]
    return np.isfinite(truth).all(axis=0) & is_clear(own) & (occlusion != NODATA)


def _with_halo(window: Window, shape: tuple[int, int]) -> tuple[Window, Core]:
    """Return the window grown by the halo within the image, and where its core lies."""
    row, col = int(window.row_off), int(window.col_off)
    top, left = max(0, row - HALO), max(0, col - HALO)
    bottom = min(shape[0], row + int(window.height) + HALO)
    right = min(shape[1], col + int(window.width) + HALO)
    core = (
        slice(row - top, row - top + int(window.height)),
        slice(col - left, col - left + int(window.width)),
    )
    return Window(left, top, right - left, bottom - top), core


def _census_scores(census: Census, bands: Sequence[str]) -> Iterator[Score]:
    for region, known in census.known.items():
        share = census.answered[region] / known if known else None
        yield Score(region, "all", "answered", share, "fraction", known)
    hidden, unseen = census.known["occluded"], census.known["never_seen"]
    share = unseen / hidden if hidden else None
    seen = int(census.days.sum())
    yield Score("occluded", "all", "never_seen_fraction", share, "fraction", hidden)
    yield Score("occluded", "all", "days_to_clear_look", census.days_to_clear_look, "day", seen)
    yield Score("all", "all", "n_bands", float(len(bands)), "band", census.known["all"])


def _row(head: dict[str, str], cover: float, score: Score) -> dict:
    return head | {
        "cloud_cover": round(cover, 6),
        "region": score.region,
        "band": score.band,
        "metric": score.metric,
        "value": score.value,
        "unit": score.unit,
        "n_pixels": score.n_pixels,
    }
