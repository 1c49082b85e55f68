"""Regressed: a training-free model that fits the target date on its own clear pixels.

Per scene, a ridge regression leads from composites of clear looks to the target date,
fitted where the target is clear; what it leaves over at the clear pixels is spread to
their neighbourhood by a normalised Gaussian. Regression on clear pixels is old in gap
filling (Zeng et al. 2013, WLR, RSE 131:182-194, doi:10.1016/j.rse.2012.12.012; Zhu, Liu &
Chen 2012, GNSPI, RSE 124:49-60, doi:10.1016/j.rse.2012.04.019); the composites at several
time constants are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unveil.models.base import Model, ModelSpec, Needs, Prediction
from unveil.models.classical import (
    DAMPED_DAYS,
    clear_looks,
    damped_composite,
    keep_clear,
    nan_median,
)
from unveil.scene import Inputs, Scene

TIME_CONSTANTS = (8.0, 20.0, 60.0)
GAUSSIAN_REACH = 4


@dataclass(frozen=True)
class RegressedOptions:
    """Options of the model.

    Attributes:
        ridge: penalty per sample on the standardised coefficients.
        sigma_px: width of the Gaussian that spreads the residual, in pixels.
        shrink: support (0...1, Gaussian-weighted share of clear pixels) at which the
            spread residual is halved.
        min_clear_pixels: with fewer, the model falls back to ``damped``.
    """

    ridge: float = 0.02
    sigma_px: float = 6.0
    shrink: float = 0.05
    min_clear_pixels: int = 200


@dataclass
class _Moments:
    """Sums over clear pixels from which the regression is solved."""

    n: int
    mean: np.ndarray  # (F + B,)
    scatter: np.ndarray  # (F + B, F + B), about the mean

    def merged(self, other: _Moments) -> _Moments:
        """Combine two samples (Chan et al. 1983), exact and stable in one pass."""
        n = self.n + other.n
        if not n:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.n / n)
        scatter = self.scatter + other.scatter + np.outer(delta, delta) * (self.n * other.n / n)
        return _Moments(n, mean, scatter)


class Regressed(Model):
    """Ridge regression from clear-look composites to the target's own clear pixels."""

    kind = "regressed"
    citation = (
        "Unveil's own training-free method; regression on clear pixels after WLR (Zeng et al. "
        "2013, doi:10.1016/j.rse.2012.12.012) and GNSPI (Zhu, Liu & Chen 2012, "
        "doi:10.1016/j.rse.2012.04.019)."
    )
    options_type = RegressedOptions

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.receptive_field = int(np.ceil(GAUSSIAN_REACH * self.options.sigma_px))
        self._coefficients: np.ndarray | None = None

    @property
    def needs(self) -> Needs:
        """At least one context frame."""
        return Needs(min_context=1, target=False)

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:
        """Fit the scene's regression from the sums over its tiles."""
        total: _Moments | None = None
        for tile in tiles:
            moments = _moments_of(tile)
            total = moments if total is None else total.merged(moments)
        self._coefficients = None
        known, needed = total.n if total else 0, self.options.min_clear_pixels
        if total is None or known < needed:
            self.notes = (
                f"fell back to damped: {known:,} clear pixels to learn from, {needed:,} needed",
            )
        else:
            self._coefficients = _solve(total, len(scene.bands), self.options.ridge)

    def predict(self, inputs: Inputs) -> Prediction:
        """Return the fitted composite plus the spread residual; clear pixels are kept."""
        base = damped_composite(inputs, DAMPED_DAYS)
        if self._coefficients is None:
            return Prediction(keep_clear(inputs, base))
        features = features_of(inputs, base)
        weights, intercept = self._coefficients[:-1], self._coefficients[-1]
        change = np.tensordot(weights.T, features, axes=1) + intercept[:, None, None]
        fitted = np.clip(base + change, 0, None)
        residual = spread_residual(
            np.where(inputs.target_clear, inputs.target - fitted, np.nan), self.options
        )
        return Prediction(keep_clear(inputs, np.clip(fitted + residual, 0, None)))


def features_of(inputs: Inputs, base: np.ndarray) -> np.ndarray:
    """Return the regression's features, ``(F, H, W)`` float32 with F = 6 B.

    Composites with three time constants, of frames before only, after only, and the
    median; a composite without a clear look takes the value of ``base``.
    """
    composites = [damped_composite(inputs, days) for days in TIME_CONSTANTS]
    composites += [
        damped_composite(inputs, DAMPED_DAYS, inputs.days < 0),
        damped_composite(inputs, DAMPED_DAYS, inputs.days >= 0),
        nan_median(clear_looks(inputs)),
    ]
    return np.concatenate([np.where(np.isnan(c), base, c) for c in composites])


def spread_residual(residual: np.ndarray, options: RegressedOptions) -> np.ndarray:
    """Spread residuals of clear pixels to their neighbours, ``(B, H, W)``; 0 far away.

    Args:
        residual: ``(B, H, W)``, NaN where unknown.
        options: width and shrinkage.
    """
    from scipy.ndimage import gaussian_filter  # lazy: a dry run predicts nothing

    known = np.isfinite(residual).all(axis=0)
    smooth = {
        "sigma": options.sigma_px,
        "mode": "constant",
        "truncate": GAUSSIAN_REACH,
    }
    support = gaussian_filter(known.astype(np.float32), **smooth)
    values = np.where(known, residual, 0).astype(np.float32)
    spread = np.stack([gaussian_filter(band, **smooth) for band in values])
    return spread / (support + options.shrink)


def _moments_of(inputs: Inputs) -> _Moments:
    base = damped_composite(inputs, DAMPED_DAYS)
    use = inputs.target_clear & np.isfinite(base).all(axis=0)
    features = features_of(inputs, base)[:, use]
    change = (inputs.target - base)[:, use]
    table = np.concatenate([features, change]).astype(np.float64)
    n = table.shape[1]
    if not n:
        return _Moments(0, np.zeros(len(table)), np.zeros((len(table), len(table))))
    mean = table.mean(axis=1)
    centred = table - mean[:, None]
    return _Moments(n, mean, centred @ centred.T)


def _solve(moments: _Moments, bands: int, ridge: float) -> np.ndarray:
    """Return ``(F + 1, B)`` coefficients: standardised ridge, intercept in the last row."""
    mean, covariance = moments.mean, moments.scatter / moments.n
    features = len(mean) - bands
    scale = np.sqrt(np.diag(covariance)[:features])
    scale = np.where(scale > 0, scale, 1.0)
    gram = covariance[:features, :features] / np.outer(scale, scale)
    cross = covariance[:features, features:] / scale[:, None]
    slopes = np.linalg.solve(gram + ridge * np.eye(features), cross) / scale[:, None]
    intercept = mean[features:] - mean[:features] @ slopes
    return np.vstack([slopes, intercept])
