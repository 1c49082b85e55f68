"""Harmonics of the year through the whole series of a pixel, with a residual that fades.

The season comes from all clear looks, what a year does differently from those near in time.
Looks far above the curve in the shortest bands, as haze and missed cloud are, lose weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unveil.models.classical import fading_weights
from unveil.models.robust_line import HAZE_BANDS, bounded_weights
from unveil.models.temporal import Temporal, TemporalOptions

YEAR = 365.25


@dataclass(frozen=True)
class HarmonicOptions(TemporalOptions):
    """Options of the harmonics.

    Attributes:
        order: harmonics of the year, 0 gives a constant.
        ridge: penalty on their amplitudes, in clear looks.
        days: time constant of the residual.
        prior: weight of a residual of 0 beside those of the looks, which weigh
            ``exp(-|days| / constant)``.
        haze: mean reflectance of the shortest bands above the curve at which a look counts
            nothing any more.
        shadow: the same below the curve.
        rounds: how often looks are weighed anew.
    """

    order: int = 1
    ridge: float = 1.0
    days: float = 10.0
    prior: float = 0.3
    haze: float = 0.06
    shadow: float = 0.12
    rounds: int = 3


class Harmonic(Temporal):
    """Harmonics of the year, with what is left over near the date damped in time."""

    kind = "harmonic"
    options_type = HarmonicOptions
    options: HarmonicOptions
    citation = (
        "Roerink, Menenti & Verhoef 2000, Reconstructing cloudfree NDVI composites using Fourier "
        "analysis of time series, Int. J. Remote Sens. 21:1911-1917, doi:10.1080/014311600209814; "
        "Zhu & Woodcock 2014, CCDC, RSE 144:152-171, doi:10.1016/j.rse.2014.01.011; here with a "
        "damped residual."
    )

    def estimate(self, looks: np.ndarray, clear: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the curve and the damped residual at day 0."""
        return np.maximum(harmonic(looks, clear, days, self.options), 0)


def harmonic(
    looks: np.ndarray, clear: np.ndarray, days: np.ndarray, options: HarmonicOptions
) -> np.ndarray:
    """Return harmonics plus damped residual at day 0, ``(B, N)``, NaN where nothing is clear.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
        days: ``(T,)`` from the wanted day.
        options: see there.
    """
    waves = _waves(days, options.order)
    wanted = _waves(np.zeros(1), options.order)[0]
    haze = looks[:, :HAZE_BANDS].mean(axis=1)
    weights = clear.astype(np.float64)
    for _ in range(options.rounds):
        coefficients = _solve(weights, waves, _project(waves, weights * haze), options.ridge)
        above = haze - _curve(waves, coefficients)
        weights = clear * bounded_weights(above, options.haze, options.shadow)
    near = fading_weights(days, options.days)[:, None] * weights
    near /= near.sum(axis=0) + options.prior
    # The answer is linear in the looks: one solution gives the shares of all bands.
    spread = _solve(weights, waves, wanted[:, None] - _project(waves, near), options.ridge)
    shares = weights * _curve(waves, spread) + near
    return np.where(clear.any(axis=0), np.einsum("tn,tbn->bn", shares, looks), np.nan)


def _waves(days: np.ndarray, order: int) -> np.ndarray:
    """Return the constant, sines and cosines at some days, ``(T, 1 + 2 order)``."""
    turns = 2 * np.pi / YEAR * np.outer(days, np.arange(1, order + 1))
    return np.concatenate([np.ones((len(days), 1)), np.sin(turns), np.cos(turns)], axis=1)


def _curve(waves: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return the curve ``(T, N)`` of coefficients ``(P, N)``; threads of BLAS cost more."""
    return np.einsum("tp,pn->tn", waves, coefficients)


def _project(waves: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the sums over dates of waves times values, ``(P, N)``."""
    return np.einsum("tp,tn->pn", waves, values)


def _solve(weights: np.ndarray, waves: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Return the solutions ``(P, N)`` of the penalised normal equations of each pixel."""
    count = waves.shape[1]
    upper = np.triu_indices(count)
    system = np.empty((count, count, weights.shape[1]))
    system[upper] = _project(waves[:, upper[0]] * waves[:, upper[1]], weights)
    penalty = np.full(count, ridge)
    penalty[0] = 1e-9
    system[np.arange(count), np.arange(count)] += penalty[:, None]
    return _solve_symmetric(system, right)


def _solve_symmetric(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the solutions ``(P, N)`` of N small systems.

    Plain elimination over all pixels at once: LAPACK, called for each, takes ten times longer.

    Args:
        matrix: ``(P, P, N)``, symmetric and positive definite; only the upper half is read,
            and spent.
        right: ``(P, N)``.
    """
    solution = right.copy()
    count = len(right)
    for j in range(count):
        ratio = matrix[j, j + 1 :] / matrix[j, j]
        for i in range(j + 1, count):
            matrix[i, i:] -= ratio[i - j - 1] * matrix[j, i:]
        solution[j + 1 :] -= ratio * solution[j]
    for j in reversed(range(count)):
        solution[j] /= matrix[j, j]
        for i in range(j):
            solution[i] -= matrix[i, j] * solution[j]
    return solution
