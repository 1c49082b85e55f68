"""Composites of clear looks, pixel by pixel: the medoid and the geometric median.

Functions here work on looks ``(T, B, N)`` with ``clear`` ``(T, N)``: T dates, B bands, N
pixels. A pixel without a clear look stays NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PIXELS_PER_BATCH = 4096
"""Pixels that most steps are made for at once, so that their looks stay in the cache."""
PIXELS_TO_SETTLE = 8192
"""Pixels of those that need more steps, of which few are left soon."""
SMOOTHED, BENT = (0.0, 0.0, 0.0, 0.9, 1.0, 1.0), 0.001
"""The steps in float32: how far each trusts the curvature (0 is Weiszfeld's step), and the
share of a pixel's spread by which distances are rounded off, so that a look is no corner."""
FEW_STEPS, MOST_STEPS = 3, 100
"""Newton steps before the looks themselves are tried, and after."""
STEP_LENGTHS = (1.0, 0.25, 0.0625, 0.0156)
FLAT = 1e-9
"""Least curvature, of the largest, from which on the minimum counts as one point."""


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

    It is the point with the least weighted sum of distances. Steps in float32 on slightly
    rounded distances lead near it; one Newton step in float64 ends most pixels, with a bound on
    the way that is left. The others, next to a look or with looks almost on a line, go on by
    Newton steps that must lower the sum, with Weiszfeld's where they do not. A look that is
    the minimum is recognised by the test of Vardi & Zhang (2000, doi:10.1073/pnas.97.4.1423)
    and returned as it is. Where many points are as good, as between two looks, it is the
    first of the looks that are.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
        weights: ``(T,)`` or ``(T, N)``, positive; None weighs all alike.
        tolerance: most distance from the minimum, in the unit of the looks.
    """
    share = _shares(clear, weights)
    seen = share.any(axis=0)
    centre, settled = np.full(looks.shape[1:], np.nan), ~seen
    for start in range(0, len(seen), PIXELS_PER_BATCH):
        part = slice(start, start + PIXELS_PER_BATCH)
        centre[:, part], near = _approach(looks[..., part], share[:, part], tolerance=tolerance)
        settled[part] |= near
    left = np.flatnonzero(~settled)
    for start in range(0, len(left), PIXELS_TO_SETTLE):
        few = left[start : start + PIXELS_TO_SETTLE]
        centre[:, few] = _settle(looks[..., few], share[:, few], centre[:, few], tolerance)
    centre[:, ~seen] = np.nan
    return centre


@dataclass(frozen=True)
class _Surroundings:
    """What a centre sees.

    Attributes:
        offset: ``(T, B, N)``, from the centre to each look.
        distance: ``(T, N)``, never 0.
        closeness: ``(T, N)``, weight over distance.
        stiffness: ``(N,)``, its sum, the largest curvature.
        pull: ``(B, N)``, downhill gradient of the mean distance.
    """

    offset: np.ndarray
    distance: np.ndarray
    closeness: np.ndarray
    stiffness: np.ndarray
    pull: np.ndarray


def _look_around(
    looks: np.ndarray, share: np.ndarray, centre: np.ndarray, *, rounding: np.ndarray | float = 0.0
) -> _Surroundings:
    """Return what a centre sees; squared distances grow by ``rounding``."""
    offset = looks - centre
    squared = np.einsum("tbn,tbn->tn", offset, offset)
    squared += rounding
    distance = np.sqrt(np.maximum(squared, np.finfo(squared.dtype).tiny, out=squared), out=squared)
    closeness = share / distance
    pull = np.einsum("tn,tbn->bn", closeness, offset)
    return _Surroundings(offset, distance, closeness, closeness.sum(axis=0), pull)


def _newton_step(here: _Surroundings, *, trust: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return Newton's step ``(B, N)`` and a bound from below of the least curvature ``(N,)``.

    The curvature is stiffness times (identity minus a matrix of trace 1), so that its largest
    B - 1 eigenvalues are no larger than the stiffness, and the least one no smaller than
    the determinant over the stiffness to that power. ``trust`` below 1 keeps the step
    at most ``1 / (1 - trust)`` of Weiszfeld's.
    """
    offset, bands = here.offset, here.offset.shape[1]
    bend = here.closeness / here.distance**2
    bend *= -trust
    curvature = np.empty((bands, *here.pull.shape), offset.dtype)
    for i in range(bands):
        np.einsum("tn,tcn->cn", bend * offset[:, i], offset[:, i:], out=curvature[i, i:])
        curvature[i, i] += here.stiffness
    return _solve(curvature, here.pull, here.stiffness)


def _solve(
    matrix: np.ndarray, right: np.ndarray, stiffness: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Solve symmetric systems ``(B, B, N)`` given by their upper halves, which are spent.

    Plain elimination over all pixels at once: LAPACK, called for each, takes ten times longer.
    """
    solution, least = right.copy(), stiffness.copy()
    bands = len(right)
    for j in range(bands):
        least *= matrix[j, j] / stiffness
        ratio = matrix[j, j + 1 :] / matrix[j, j]
        for i in range(j + 1, bands):
            matrix[i, i:] -= ratio[i - j - 1] * matrix[j, i:]
        solution[j + 1 :] -= ratio * solution[j]
    for j in reversed(range(bands)):
        solution[j] /= matrix[j, j]
        for i in range(j):
            solution[i] -= matrix[i, j] * solution[j]
    return solution, least


def _remaining(here: _Surroundings, step: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Bound the distance from the minimum after a Newton step, ``(N,)``; inf if unknown.

    The third derivative of a distance d is at most 1.16 / d², so that Newton leaves at most
    0.58 step² sum(weight / d²) / least curvature; distances may shrink by half on the way.
    What float32 rounds off in the curvature leaves a share of the step.
    """
    length = np.sqrt(np.einsum("bn,bn->n", step, step))
    nearest = here.distance.min(axis=0, where=here.closeness > 0, initial=np.inf)
    third = np.einsum("tn,tn->n", here.closeness, 1 / here.distance)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        left = (2.4 * third * length**2 + 1e-6 * here.stiffness * length) / least
    known = (least > FLAT * here.stiffness) & (2 * length < nearest)
    return np.where(known, left, np.inf)


def _approach(
    looks: np.ndarray, share: np.ndarray, *, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a centre near the minimum, ``(B, N)``, and whether it is within the tolerance."""
    mean = np.einsum("tn,tbn->bn", share, looks)
    narrow, part = (looks - mean).astype(np.float32), share.astype(np.float32)
    centre = np.zeros(mean.shape, np.float32)
    spread = np.einsum("tn,tbn,tbn->n", part, narrow, narrow)
    rounding = np.float32(BENT**2) * spread + np.float32(1e-20)
    with np.errstate(all="ignore"):
        for trust in SMOOTHED:
            here = _look_around(narrow, part, centre, rounding=rounding)
            if trust:
                centre += _newton_step(here, trust=trust)[0]
            else:
                centre += here.pull / here.stiffness
        start = mean + np.where(np.isfinite(centre), centre, 0)
        here = _look_around(looks, share, start)
        step, least = _newton_step(here)
        end = start + step
        settled = _remaining(here, step, least) <= tolerance
    return np.where(settled, end, start), settled


def _settle(
    looks: np.ndarray, share: np.ndarray, start: np.ndarray, tolerance: float
) -> np.ndarray:
    """Return the minimum, ``(B, N)``, from a start that may be anywhere.

    Where a few more steps do not end, a look may be the minimum. It is the medoid then;
    elsewhere the way away from the medoid leads below every look, so that steps which lower
    the mean distance never meet one.
    """
    answer = start.copy()
    active = _walk(looks, share, answer, np.arange(len(answer[0])), FEW_STEPS, tolerance)
    best, is_minimum = _leave_looks(looks[..., active], share[:, active], answer[:, active])
    answer[:, active] = best
    _walk(looks, share, answer, active[~is_minimum], MOST_STEPS, tolerance)
    return answer


def _walk(
    looks: np.ndarray,
    share: np.ndarray,
    centre: np.ndarray,
    active: np.ndarray,
    steps: int,
    tolerance: float,
) -> np.ndarray:
    """Move the centres of active pixels in place; return those not within the tolerance."""
    for _ in range(steps):
        if not len(active):
            break
        centre[:, active], settled = _descend(
            looks[..., active], share[:, active], centre[:, active], tolerance=tolerance
        )
        active = active[~settled]
    return active


def _leave_looks(
    looks: np.ndarray, share: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the better of the centre and the step away from the medoid, ``(B, N)``.

    Where the medoid itself is the minimum, return it, and that it is, ``(N,)``.
    """
    medoid = _least(looks, _summed_distances(looks, share))
    offset = looks - medoid
    distance = np.linalg.norm(offset, axis=1)
    closeness = np.divide(share, distance, out=np.zeros_like(distance), where=distance > 0)
    pull = np.einsum("tn,tbn->bn", closeness, offset)
    strength = np.linalg.norm(pull, axis=0)
    held = np.where(distance > 0, 0, share).sum(axis=0)
    is_minimum = strength <= held * (1 + 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(is_minimum, 0, (1 - held / strength) / closeness.sum(axis=0))
    away = medoid + reach * pull
    lower = _mean_distance(looks, share, centre) < _mean_distance(looks, share, away)
    return np.where(lower & ~is_minimum, centre, away), is_minimum


def _descend(
    looks: np.ndarray, share: np.ndarray, centre: np.ndarray, *, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the next centre, ``(B, N)``, and whether it is within the tolerance."""
    here = _look_around(looks, share, centre)
    cost = np.einsum("tn,tn->n", share, here.distance)
    with np.errstate(all="ignore"):
        step, least = _newton_step(here)
        settled = _remaining(here, step, least) <= tolerance
        gain = 0.05 * np.einsum("bn,bn->n", step, here.pull)
    end = centre + np.where(settled, step, here.pull / here.stiffness)
    left = np.flatnonzero(~settled & (gain >= 0))
    for length in STEP_LENGTHS:
        trial = centre[:, left] + length * step[:, left]
        after = _mean_distance(looks[..., left], share[:, left], trial)
        lower = after <= cost[left] * (1 + 1e-14) - length * gain[left]
        end[:, left[lower]] = trial[:, lower]
        left = left[~lower]
    return end, settled


def _mean_distance(looks: np.ndarray, share: np.ndarray, centre: np.ndarray) -> np.ndarray:
    return np.einsum("tn,tn->n", share, np.linalg.norm(looks - centre, axis=1))
