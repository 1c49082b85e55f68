"""Composites of clear looks, pixel by pixel: the medoid and the geometric median.

Functions here work on looks ``(T, B, N)`` with ``clear`` ``(T, N)``: T dates, B bands, N
pixels. A pixel without a clear look stays NaN.
"""

from __future__ import annotations

import numpy as np


def medoid(looks: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Return the medoid of clear looks, ``(B, N)``; of equally good looks the first.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
    """
    # Sums of the same distances in another order must still count as equal.
    total = np.round(_summed_distances(looks, clear.astype(np.float64)), 9)
    return np.where(clear.any(axis=0), _least(looks, total), np.nan)


def _summed_distances(looks: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return each look's weighted sum of distances, ``(T, N)``, inf where it weighs nothing."""
    total = np.zeros(share.shape)
    for i in range(len(looks)):
        for j in range(i):
            distance = np.linalg.norm(looks[i] - looks[j], axis=0)
            total[i] += distance * share[j]
            total[j] += distance * share[i]
    return np.where(share > 0, total, np.inf)


def _least(looks: np.ndarray, cost: np.ndarray) -> np.ndarray:
    """Return the first look of least cost, ``(B, N)``."""
    return np.take_along_axis(looks, cost.argmin(axis=0)[None, None], axis=0)[0]


def _shares(clear: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return the part of each look, ``(T, N)`` float64 with sum 1; 0 where none is clear."""
    if weights is None:
        parts = clear.astype(np.float64)
    else:
        parts = clear * np.asarray(weights, np.float64).reshape(len(clear), -1)
    total = parts.sum(axis=0)
    return parts / np.where(total > 0, total, 1)


def geometric_median(
    looks: np.ndarray,
    clear: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    tolerance: float = 1e-7,
) -> np.ndarray:
    """Return the geometric median of clear looks, ``(B, N)`` float64.

    It is the point with the least weighted sum of distances. Weiszfeld's steps lead near it, then
    Newton's with a bound on the way that is left; where a Newton step does not lower the sum,
    a shorter one does, or Weiszfeld's. A look that is the minimum is recognised by the test
    of Vardi & Zhang (2000, doi:10.1073/pnas.97.4.1423) and returned as it is. Where many points
    are as good, as between two looks, it is the first of the looks that are. The steps are
    compiled (:mod:`unveil.nearest_point`); the first call in a process takes half a second.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
        weights: ``(T,)`` or ``(T, N)``, positive; None weighs all alike.
        tolerance: most distance from the minimum, in the unit of the looks.
    """
    from unveil.nearest_point import fill  # lazy: imports Numba

    share = _shares(clear, weights)
    centre = np.full(looks.shape[1:], np.nan)
    seen = np.flatnonzero(share.any(axis=0))
    if len(seen):
        fill(np.ascontiguousarray(looks, np.float64), share, seen, tolerance, centre)
    return centre
