"""VPint2: values of clear pixels propagated under the clouds along a clear reference.

Per band, every missing pixel becomes the weighted mean of its four neighbours, each
multiplied by the local ratio of the reference (here over there), until the image settles.
Source: Arp et al. 2024 (see :class:`VPint2`), on VPint, Arp et al. 2022
(doi:10.1007/s10618-022-00843-2). What the texts leave open was settled by trying each
alternative against outputs of the published code, and is said where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unveil.bands import REFLECTANCE_SCALE
from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.classical import Nearest
from unveil.scene import Inputs, Scene

ZERO_REFERENCE = 0.01
"""DN that stands for a reference of 0, as published."""

IDENTITY_SOFTENING = 0.001


@dataclass(frozen=True)
class Propagation:
    """How values spread, in the unit of the image (DN as published).

    Attributes:
        identity: identity priority (the paper's beta): neighbours whose reference differs
            little count more; 0 is a plain mean.
        resistance: elastic band resistance (epsilon): share of its last value that a value
            above ``resistance_above`` loses in each iteration; 0 is none.
        resistance_above: the level (mu) above which there is resistance.
        clip: upper limit of propagated values.
        tolerance: stop when the mean change falls to this share of the mean value.
        max_iterations: stop at the latest after so many.
    """

    identity: float = 0.0
    resistance: float = 0.0
    resistance_above: float = np.inf
    clip: float = np.inf
    tolerance: float = 1e-4
    max_iterations: int = 5000


@dataclass(frozen=True)
class VPint2Options:
    """Options of the model; reflectances as reflectance.

    Attributes:
        identity: see :class:`Propagation`; 1 as in the authors' example.
        resistance: see :class:`Propagation`; the paper tunes it per image, so none here.
        resistance_above: reflectance from which there is resistance.
        clip: highest reflectance that is propagated.
        tolerance: see :class:`Propagation`.
        max_iterations: see :class:`Propagation`.
        mask_reach: pixels that a pass of :func:`grow_missing` reaches; 0 grows nothing.
        mask_passes: its passes.
        max_megapixels: larger scenes are skipped, because the whole scene is solved at once.
        keep_clear: give the target's own value back where it is clear (resistance alters
            bright ones).
    """

    identity: float = 1.0
    resistance: float = 0.0
    resistance_above: float = 0.3
    clip: float = 1.0
    tolerance: float = 1e-4
    max_iterations: int = 5000
    mask_reach: int = 0
    mask_passes: int = 1
    max_megapixels: float = 16.0
    keep_clear: bool = True

    @property
    def propagation(self) -> Propagation:
        """The same in DN."""
        return Propagation(
            identity=self.identity,
            resistance=self.resistance,
            resistance_above=self.resistance_above * REFLECTANCE_SCALE,
            clip=self.clip * REFLECTANCE_SCALE,
            tolerance=self.tolerance,
            max_iterations=self.max_iterations,
        )


def neighbour_weights(reference: np.ndarray) -> np.ndarray:
    """Return the ratio of the reference here to each neighbour's, ``(4, H, W)`` float64.

    Order: up, right, down, left; 0 outside the image and where either is NaN.

    Args:
        reference: ``(H, W)``; values of 0 and less count as :data:`ZERO_REFERENCE`.
    """
    here = np.where(reference <= 0, ZERO_REFERENCE, reference).astype(np.float64)
    around = np.pad(here, 1, constant_values=np.nan)
    neighbours = np.stack(_neighbours(around))
    return np.nan_to_num(here / neighbours, nan=0.0)


def priorities(weights: np.ndarray, identity: float) -> np.ndarray:
    """Return how much each neighbour counts, ``(4, H, W)``; 0 where there is none.

    The share of identity is w for a weight w below 1 and 1 / (identity w) above; it is
    softened to s^2 / (s + 0.001), and is ``identity`` itself where w is exactly 1 (softening
    and exception as in the published outputs).
    """
    exists = weights > 0
    if not identity:
        return exists.astype(np.float64)
    safe = np.where(exists, weights, 1)
    share = np.where(safe > 1, 1 / (identity * safe), safe)
    softened = np.where(safe == 1, identity, share**2 / (share + IDENTITY_SOFTENING))
    return np.where(exists, softened, 0)


def propagate(
    target: np.ndarray, reference: np.ndarray, missing: np.ndarray, settings: Propagation
) -> tuple[np.ndarray, int]:
    """Fill the missing pixels of one band.

    Missing pixels start at the mean of the known ones. With resistance, known pixels above
    its level give way too, as published.

    Args:
        target: ``(H, W)``; NaN only where missing.
        reference: ``(H, W)``, NaN where unknown.
        missing: ``(H, W)`` bool.
        settings: how values spread.

    Returns:
        ``(H, W)`` float64, NaN where no known pixel can be reached, and the iterations used.
    """
    weights = neighbour_weights(reference)
    shares = priorities(weights, settings.identity)
    total = shares.sum(axis=0)
    solved = missing & _reached(~missing, weights)
    factors = np.divide(weights * shares, total, out=np.zeros_like(weights), where=total > 0)
    start = target[~missing].mean(dtype=np.float64) if solved.any() else 0.0
    known = np.where(missing, 0, target).astype(np.float64)
    values = np.pad(np.where(solved, start, known), 1)
    iterations = _iterate(values, known, factors, solved, settings) if solved.any() else 0
    return np.where(missing & ~solved, np.nan, values[1:-1, 1:-1]), iterations


def _iterate(
    values: np.ndarray,
    known: np.ndarray,
    factors: np.ndarray,
    solved: np.ndarray,
    settings: Propagation,
) -> int:
    """Update ``values``, padded by a pixel, until they settle; return the iterations used.

    Only pixels that can change are computed: the solved ones, and known ones that give way
    to resistance.
    """
    yielding = ~solved & (known > settings.resistance_above) & (settings.resistance > 0)
    changing = solved | yielding
    flat, width = values.reshape(-1), values.shape[1]
    here = np.flatnonzero(np.pad(changing, 1))
    sources = [(factors[k][changing], here + step) for k, step in enumerate((-width, 1, width, -1))]
    fixed, held = yielding[changing], known[changing]
    level = flat.sum()
    for iteration in range(1, settings.max_iterations + 1):
        estimate = sum(factor * flat[neighbour] for factor, neighbour in sources)
        estimate = np.where(fixed, held, np.minimum(estimate, settings.clip))
        before = flat[here]
        if settings.resistance:
            bright = estimate > settings.resistance_above
            estimate[bright] -= settings.resistance * before[bright]
        flat[here] = estimate
        change = estimate - before
        settled = np.abs(change).sum() <= settings.tolerance * level
        level += change.sum()
        if settled:
            return iteration
    return settings.max_iterations


def _neighbours(padded: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return views of the neighbours up, right, down, left of each inner pixel."""
    return padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2]


def _reached(known: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the pixels that a chain of neighbours with weights joins to a known pixel."""
    from scipy.ndimage import label  # lazy: a dry run predicts nothing

    labels, count = label((weights > 0).any(axis=0))
    joined = np.bincount(labels[known], minlength=count + 1) > 0
    joined[0] = False
    return joined[labels]


def grow_missing(missing: np.ndarray, *, reach: int, passes: int) -> np.ndarray:
    """Grow a mask; a pass marks ``reach`` rows and columns before a pixel, one fewer after.

    The window is that of the published code.
    """
    from scipy.ndimage import binary_dilation  # lazy: a dry run predicts nothing

    if not reach:
        return missing
    window = np.ones((2 * reach, 2 * reach), bool)
    return binary_dilation(missing, window, iterations=passes)


class VPint2(Model):
    """VPint2; its reference is the nearest clear look in time of each pixel.

    The authors take one clear image as reference. A composite of nearest looks is the same
    where one clear frame covers the scene, and needs no clear frame elsewhere; across the
    border between two dates the ratios mix both. Where no look is clear there is no
    answer. Automatic adaptation of the settings is left out: it is a random search.
    """

    kind = "vpint2"
    citation = (
        "Arp, Hoos, van Bodegom, Francis, Wheeler, van Laar & Baratchi 2024, Training-free "
        "thick cloud removal for Sentinel-2 imagery using value propagation interpolation, "
        "ISPRS J. Photogramm. Remote Sens. 216:168-184, doi:10.1016/j.isprsjprs.2024.07.030."
    )
    receptive_field = None
    options_type = VPint2Options

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self._nearest = Nearest(ModelSpec("nearest", Nearest.kind))

    @property
    def needs(self) -> Needs:
        """At least one context frame."""
        return Needs(min_context=1)

    def skip(self, scene: Scene) -> str | None:
        """Return why it cannot run: an unmet need, or a scene too large to solve at once."""
        size, limit = scene.grid.pixels / 1e6, self.options.max_megapixels
        if size > limit:
            return f"solves a scene at once; {size:.1f} Mpx exceed max_megapixels {limit:g}"
        return super().skip(scene)

    def predict(self, inputs: Inputs) -> Prediction:
        """Fill occluded pixels of a whole scene; NaN where no data or no clear reference."""
        options = self.options
        has_data = np.isfinite(inputs.target).all(axis=0)
        missing = grow_missing(
            ~inputs.target_clear, reach=options.mask_reach, passes=options.mask_passes
        )
        reference = np.clip(self._nearest.estimate(inputs), 0, 1) * REFLECTANCE_SCALE
        reference[:, ~has_data] = np.nan
        if missing.all():
            return Prediction(np.full_like(inputs.target, np.nan))
        result = np.empty_like(inputs.target)
        for band, target in enumerate(inputs.target):
            filled, _ = propagate(
                target * REFLECTANCE_SCALE, reference[band], missing, options.propagation
            )
            result[band] = filled / REFLECTANCE_SCALE
        kept = inputs.target_clear & options.keep_clear
        result = np.where(kept, inputs.target, result)
        return Prediction(np.where(has_data, result, np.nan).astype(np.float32))
