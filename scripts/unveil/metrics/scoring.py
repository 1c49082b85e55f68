"""Score one prediction of one scene: the metrics stage's work for one row of the table.

Which pixels count:

- the truth must be known: the reference has data in every scored band, and the scored set that
  was written with the scene (the occlusion raster) is not 255. No mask of this run's masks stage
  is asked, so that no setting of it moves what is scored;
- the model must have answered: a pixel without data in any scored band is left out of the
  errors and shown in the metric ``answered``, the fraction of a region's pixels that have an
  answer. Compare errors of models only together with it.

``cloud_cover`` is the fraction of occluded pixels among those whose class is known (occlusion
raster not 255). Bands are those that prediction and reference share; ``n_bands`` says how
many, the rows per band say which. The reading is window by window: memory does not grow with
the scene.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from unveil import raster
from unveil.bands import BANDS, NODATA, sort_bands
from unveil.classes import RIM_PX, near
from unveil.distribution import NORMAL, Distribution, read_distribution
from unveil.errors import InputError, SceneSkipped
from unveil.guarded import read_json, reading_input
from unveil.metrics import definitions, published
from unveil.metrics.registry import IN_PAPERS
from unveil.metrics.strata import (
    KEPT_REGIONS,
    LAND_COVER,
    LOOKS,
    REGIONS,
    TRUTH_REGIONS,
    LandCover,
    haze_mask,
    land_cover_masks,
    look_masks,
    nearest_look,
    region_masks,
)
from unveil.metrics.streaming import HALO, Accumulator, Core, LevelErrors, Score
from unveil.metrics.tables import PAPERS
from unveil.metrics.uncertainty import Calibration
from unveil.protocols import PROTOCOLS
from unveil.scene import (
    Frame,
    Scene,
    bbox,
    is_occluded,
    read_mask,
    read_occlusion,
    read_reflectance,
)

logger = logging.getLogger(__name__)

BLOCK = 2 * raster.BLOCK
"""Side of the windows: with a halo, a larger window rereads fewer blocks of the files."""
PUBLISHED_PATCH = 256
"""Side of the patches that the papers' evaluators look at, pixels."""
CALIBRATED = ("all", "occluded", "clear")
"""Regions in which the standard deviation of a model is judged."""
LEVELLED = ("all", "occluded", "rim", "far")
"""Regions in which the error without the scene's level is taken."""
PLACE_BUFFER_DEGREES = 0.05
"""Nearer than this, two places are taken for one."""
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
        close: ``(H, W)`` bool, near an occluded pixel; true to the image in the core alone.
        look: ``(H, W)`` float32 days to the nearest clear look.
        land: ``(H, W)`` codes of land cover; None without a raster of classes.
        std: ``(B, H, W)`` float32 standard deviation, NaN without; None if there is none.
        core: rows and columns without the halo.
    """

    prediction: np.ndarray
    truth: np.ndarray
    target: np.ndarray | None
    known: np.ndarray
    occlusion: np.ndarray
    close: np.ndarray
    look: np.ndarray
    land: np.ndarray | None
    std: np.ndarray | None
    core: Core

    @property
    def answered(self) -> np.ndarray:
        """``(H, W)`` bool: the model gave every scored band."""
        return np.isfinite(self.prediction).all(axis=0)


class CopiedTruthError(InputError):
    """A prediction equals the truth wherever something is hidden: a fault of it alone."""


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


class Sums:
    """Everything that is summed while the windows of a scene pass by."""

    def __init__(
        self,
        bands: Sequence[str],
        *,
        distribution: Distribution | None,
        exact: bool = False,
        land_cover: LandCover | None = None,
    ) -> None:
        self.bands, self.exact, self.land_cover = tuple(bands), exact, land_cover
        self.strata = (*LOOKS, *(land_cover.classes if land_cover else LAND_COVER))
        self.against_truth = Accumulator(bands, (*TRUTH_REGIONS, *self.strata))
        self.against_target = Accumulator(bands, KEPT_REGIONS)
        self.levels = LevelErrors(bands, LEVELLED)
        self.census = Census()
        names = CALIBRATED if distribution else ()
        self.calibration = {name: Calibration(distribution or NORMAL) for name in names}

    def update(self, patch: Patch) -> None:
        """Add one window."""
        regions = region_masks(
            patch.occlusion, np.isfinite(patch.look), close=patch.close, haze=self._haze(patch)
        )
        self.census.update(patch, regions)
        valid = patch.known & patch.answered
        hidden = regions["occluded"]
        strata = look_masks(hidden, patch.look)
        strata |= self._land(hidden, patch)
        p, core = patch.prediction, patch.core
        self.against_truth.update(p, patch.truth, valid, regions | strata, core=core)
        inside = {name: regions[name][core] for name in LEVELLED}
        self.levels.update(p[:, *core], patch.truth[:, *core], valid[core], inside)
        if patch.target is not None:
            kept = valid & np.isfinite(patch.target).all(axis=0)
            self.against_target.update(p, patch.target, kept, regions, core=core)
        if patch.std is None:
            return
        for name, calibration in self.calibration.items():
            given = valid & regions[name] & np.isfinite(patch.std).all(axis=0)
            here = given[core]
            error = definitions.difference(p[:, *core][:, here], patch.truth[:, *core][:, here])
            calibration.update(error, patch.std[:, *core][:, here])

    def _haze(self, patch: Patch) -> np.ndarray | None:
        if not self.exact or patch.target is None:
            return None
        return haze_mask(patch.target, patch.truth, patch.occlusion, self.bands)

    def _land(self, hidden: np.ndarray, patch: Patch) -> dict[str, np.ndarray]:
        if self.land_cover and patch.land is not None:
            return self.land_cover.masks(hidden, patch.land)
        return land_cover_masks(hidden, patch.truth, self.bands)

    def scores(self) -> Iterator[Score]:
        """Yield all scores of the scene; those of strata over bands only."""
        for score in self.against_truth.scores():
            if score.region not in self.strata or score.band == "all":
                yield score
        yield from self.levels.scores()
        yield from self.against_target.scores()
        yield from _census_scores(self.census, self.bands)
        for name, calibration in self.calibration.items():
            yield from calibration.scores(name, bands=len(self.bands))


def score_scene(
    scene: Scene,
    prediction: str | Path,
    *,
    model: str,
    std: str | Path | None = None,
    land_cover: LandCover | None = None,
    block: int = BLOCK,
) -> list[dict]:
    """Score a prediction against the truth of its scene.

    Args:
        scene: a scene ready for analysis, with its truth.
        prediction: uint16 raster, reflectance x 10000, nodata 0, bands described by ESA
            name, on the grid of the scene.
        model: id of the model, for the rows.
        std: standard deviations of the prediction, a raster of the same kind; its tags name their
            distribution (:mod:`unveil.distribution`).
        land_cover: classes to sort occluded pixels by, instead of spectral ones.
        block: side of the windows in pixels.

    Returns:
        Rows with the keys :data:`unveil.metrics.tables.COLUMNS`. ``value`` is None where a
        metric is undefined or its region has no pixels (``n_pixels`` 0); it is never NaN or
        infinite.

    Raises:
        SceneSkipped: if the scene has no reference, or no truth is known in it.
        InputError: if a file is bad, the prediction does not fit the scene, or the truth
            has leaked into the inputs.
        CopiedTruthError: if the prediction is the truth.
    """
    prediction = Path(prediction)
    references = scene.with_role("reference")
    if not references:
        raise SceneSkipped("no reference: nothing to compare the prediction with")
    output = _output_frame(prediction, scene)
    spread = _output_frame(Path(std), scene) if std else None
    bands = _common_bands(output, references[0])
    exact = PROTOCOLS[scene.protocol].exact
    distribution = read_distribution(spread.path) if spread else None
    sums = Sums(bands, distribution=distribution, exact=exact, land_cover=land_cover)
    for patch in _patches(scene, output, spread, bands, land_cover, block):
        sums.update(patch)
    if not sums.census.known["all"]:
        raise SceneSkipped("the truth is not known at any pixel: all nodata or cloudy")
    refuse_leakage(scene)  # after that, as blank images are all alike
    _refuse_copies(scene, prediction, sums.census)
    head = {"scene": scene.id, "model": model, "protocol": scene.protocol}
    scores = [*sums.scores(), *as_published(scene, output, bands)]
    return [_row(head, sums.census.cloud_cover, score) for score in scores]


def as_published(scene: Scene, output: Frame, bands: Sequence[str]) -> Iterator[Score]:
    """Score by the definitions of the papers, on patches of their size.

    The scene is cut into equal patches of about :data:`PUBLISHED_PATCH` pixels a side, and
    their values are averaged, as the papers do. Their programs know no pixels without data:
    a patch counts where target, truth and prediction have every band everywhere.

    Yields:
        Scores of the regions ``as_published:NAME``, NAME of
        :data:`unveil.metrics.published.DEFINITIONS`; ``n_pixels`` of the patches counted.
    """
    if not set(bands) <= set(scene.target.bands):
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in published.DEFINITIONS}
    n_pixels = 0
    for window in _published_patches(scene.grid.shape):
        images = [
            read_reflectance(frame, bands, window)
            for frame in (output, scene.with_role("reference")[0], scene.target)
        ]
        if not all(np.isfinite(image).all() for image in images):
            continue
        answer, truth, cloudy = images
        occlusion = read_occlusion(scene, window)
        covers = [is_occluded(read_mask(f, window)[0]) for f in scene.context]
        known = _is_known(truth, occlusion)
        masks = np.stack([is_occluded(occlusion), *covers])
        for name, values in published.by_every_paper(answer, truth, cloudy, masks, known).items():
            found[name].append(values)
        n_pixels += known.size
    for name, patches in found.items():
        for metric in IN_PAPERS:
            per_patch = np.array([values[metric] for values in patches])
            per_patch = per_patch[np.isfinite(per_patch)]
            defined = per_patch.size and (metric != "SAM" or len(bands) > 1)
            value = float(per_patch.mean()) if defined else None
            yield Score(f"{PAPERS}{name}", "all", metric, value, n_pixels)


def _published_patches(shape: tuple[int, int]) -> Iterator[Window]:
    """Yield windows of about :data:`PUBLISHED_PATCH` pixels a side that tile an image."""
    rows, columns = (
        np.linspace(0, side, max(1, round(side / PUBLISHED_PATCH)) + 1).round().astype(int)
        for side in shape
    )
    for top, bottom in pairwise(rows.tolist()):
        for left, right in pairwise(columns.tolist()):
            yield Window(left, top, right - left, bottom - top)


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


def why_known(scene: Scene, weights: str | Path | None) -> str:
    """Say that weights were made on the place of a scene; empty where they were not.

    Places are compared as boxes in longitude and latitude, with a buffer of about 5 km, from
    the card beside the weights. Weights without a card (foreign checkpoints) state no places.

    Args:
        scene: the scene.
        weights: file of the weights, or None.

    Raises:
        InputError: if the card is damaged.
    """
    card = Path(weights).with_suffix(".json") if weights else None
    box = bbox(scene.grid)
    if card is None or box is None or not card.exists():
        return ""
    remedy = "restore the card from where the weights come from"
    places = read_json(card, kind="the card of weights", remedy=remedy).get("places", [])
    with reading_input(card, "the card of weights", remedy=remedy):
        near = [p for p in places if _boxes_meet(box, p["bbox"], PLACE_BUFFER_DEGREES)]
        if not near:
            return ""
        how = near[0].get("role", "trained on")
        return f"its weights were {how} {near[0]['id']}, at or near this place"


def _boxes_meet(first: Sequence[float], second: Sequence[float], buffer: float) -> bool:
    (w1, s1, e1, n1), (w2, s2, e2, n2) = first, second
    return w1 - buffer <= e2 and w2 - buffer <= e1 and s1 - buffer <= n2 and s2 - buffer <= n1


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
        raise CopiedTruthError(
            f"the prediction equals the reference of scene {scene.id} at every occluded pixel",
            file=prediction,
            remedy="find out how the model saw the truth, and remove the prediction",
        )


def _output_frame(path: Path, scene: Scene) -> Frame:
    """Return a model's raster as a frame, once it is found to fit the scene."""
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
    return Frame(scene.target.date, "prediction", path, tuple(names))


def _common_bands(output: Frame, reference: Frame) -> tuple[str, ...]:
    bands = sort_bands(set(output.bands) & set(reference.bands))
    if not bands:
        raise InputError(
            f"has bands {', '.join(output.bands)}, the reference has {', '.join(reference.bands)}",
            file=output.path,
            field="band description",
            remedy="predict at least one band of the reference",
        )
    left_out = sort_bands(set(reference.bands) - set(bands))
    if left_out:
        logger.info(
            "%s: 'all' is over %s; not predicted: %s",
            output.path,
            ", ".join(bands),
            ", ".join(left_out),
        )
    return bands


def _patches(
    scene: Scene,
    output: Frame,
    spread: Frame | None,
    wanted: Sequence[str],
    land_cover: LandCover | None,
    block: int,
) -> Iterator[Patch]:
    """Yield the windows of a scene with their halo, in the bands wanted."""
    whole, reference = set(wanted) <= set(scene.target.bands), scene.with_role("reference")[0]
    for window in scene.grid.windows(block):
        wide = scene.grid.with_halo(window, HALO)
        truth = read_reflectance(reference, wanted, wide)
        around = scene.grid.with_halo(window, max(HALO, RIM_PX))
        within_around = raster.within(wide, around)
        classes = read_occlusion(scene, around)
        occlusion = classes[within_around]
        yield Patch(
            prediction=read_reflectance(output, wanted, wide),
            truth=truth,
            target=read_reflectance(scene.target, wanted, wide) if whole else None,
            known=_is_known(truth, occlusion),
            occlusion=occlusion,
            close=near(is_occluded(classes), RIM_PX)[within_around],
            look=nearest_look(scene, wide),
            land=land_cover.read(scene.grid, wide) if land_cover else None,
            std=read_reflectance(spread, wanted, wide) if spread else None,
            core=raster.within(window, wide),
        )


def _is_known(truth: np.ndarray, occlusion: np.ndarray) -> np.ndarray:
    """``(H, W)`` bool: truth with data in every band, occlusion not 255."""
    return np.isfinite(truth).all(axis=0) & (occlusion != NODATA)


def _census_scores(census: Census, bands: Sequence[str]) -> Iterator[Score]:
    for region, known in census.known.items():
        share = census.answered[region] / known if known else None
        yield Score(region, "all", "answered", share, known)
    hidden, unseen = census.known["occluded"], census.known["never_seen"]
    share = unseen / hidden if hidden else None
    seen = int(census.days.sum())
    yield Score("occluded", "all", "never_seen_fraction", share, hidden)
    yield Score("occluded", "all", "days_to_clear_look", census.days_to_clear_look, seen)
    yield Score("all", "all", "n_bands", float(len(bands)), census.known["all"])


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
