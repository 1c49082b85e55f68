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
WEISZFELD_STEPS, TRUSTS = 4, (0.9, 1.0, 1.0)
"""Steps in float32: Weiszfeld's, then Newton's, and how far each trusts the curvature."""
BENT = 3e-4
"""Share of a pixel's spread by which distances are rounded off, so that a look is no corner."""
NEAR = 0.3
"""A centre so much nearer to a look than to the mean look is asked whether that look is it."""
FEW_STEPS, MOST_STEPS = 3, 100
"""Newton steps before the looks themselves are tried, and after."""
STEP_LENGTHS = (1.0, 0.25, 0.0625, 0.0156)


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


def _columns(pixels: np.ndarray, *arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return some pixels of each array; indexing would leave their memory transposed."""
    return tuple(np.take(array, pixels, axis=-1) for array in arrays)


def geometric_median(
    looks: np.ndarray,
    clear: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    tolerance: float = 1e-7,
) -> np.ndarray:
    """Return the geometric median of clear looks, ``(B, N)`` float64.

    It is the point with the least weighted sum of distances. Steps in float32 on slightly
    rounded distances lead near it, by Weiszfeld and then by Newton; one more in float64 ends
    most pixels, with a bound on the way that is left. A look that is the minimum is
    recognised by the test of Vardi & Zhang (2000, doi:10.1073/pnas.97.4.1423) and returned as
    it is. The pixels that are left go on by Newton steps that must lower the sum, with
    Weiszfeld's where none does. Where many points are as good, as between two looks, it is
    the first of the looks that are.

    Args:
        looks: ``(T, B, N)`` float64, finite.
        clear: ``(T, N)`` bool.
        weights: ``(T,)`` or ``(T, N)``, positive; None weighs all alike.
        tolerance: most distance from the minimum, in the unit of the looks.
    """
    share = _shares(clear, weights)
    seen = share.sum(axis=0) > 0
    centre, settled = np.full(looks.shape[1:], np.nan), ~seen
    for start in range(0, len(seen), PIXELS_PER_BATCH):
        part = slice(start, start + PIXELS_PER_BATCH)
        centre[:, part], near = _approach(looks[..., part], share[:, part], tolerance=tolerance)
        settled[part] |= near
    left = np.flatnonzero(~settled)
    for start in range(0, len(left), PIXELS_TO_SETTLE):
        few = left[start : start + PIXELS_TO_SETTLE]
        values, parts, begin = _columns(few, looks, share, centre)
        centre[:, few] = _settle(values, parts, begin, tolerance)
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

    def rounded(self) -> _Surroundings:
        """Return the same in float32."""
        parts = (self.offset, self.distance, self.closeness, self.stiffness, self.pull)
        return _Surroundings(*(part.astype(np.float32) for part in parts))


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
    step, pivots = solve_symmetric(curvature, here.pull)
    return step, here.stiffness * np.prod(pivots / here.stiffness, axis=0)


def solve_symmetric(matrix: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the solutions and the pivots, both ``(B, N)``, of N small systems.

    Plain elimination over all pixels at once: LAPACK, called for each, takes ten times longer.

    Args:
        matrix: ``(B, B, N)``, symmetric and positive definite; only the upper half is read,
            and spent.
        right: ``(B, N)``.
    """
    solution = right.copy()
    bands = len(right)
    for j in range(bands):
        ratio = matrix[j, j + 1 :] / matrix[j, j]
        for i in range(j + 1, bands):
            matrix[i, i:] -= ratio[i - j - 1] * matrix[j, i:]
        solution[j + 1 :] -= ratio * solution[j]
    for j in reversed(range(bands)):
        solution[j] /= matrix[j, j]
        for i in range(j):
            solution[i] -= matrix[i, j] * solution[j]
    return solution, matrix[np.arange(bands), np.arange(bands)]


def _remaining(here: _Surroundings, step: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Bound the distance from the minimum after a Newton step, ``(N,)``; inf if unknown.

    The third derivative of a distance d is at most 1.16 / d², so that Newton leaves at most
    0.58 step² sum(weight / d²) / least curvature, where each d may shrink by two steps, if
    that is no more than a quarter of the step (Kantorovich's theorem). What is rounded off in
    the curvature leaves a small share of the step.
    """
    rounding = float(np.finfo(step.dtype).eps)
    length = np.sqrt(np.einsum("bn,bn->n", step, step))
    inverse = np.where(here.closeness > 0, 1 / here.distance, 0)
    shrunk = 1 - 2 * length * inverse.max(axis=0)
    third = np.einsum("tn,tn->n", here.closeness, inverse) / shrunk**2
    left = (0.58 * third * length**2 + 10 * rounding * here.stiffness * length) / least
    known = (shrunk > 0) & (left <= length / 4) & (least > 100 * rounding * here.stiffness)
    return np.where(known, left, np.inf)


def _approach(
    looks: np.ndarray, share: np.ndarray, *, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return a centre near the minimum, ``(B, N)``, and whether it is within the tolerance."""
    mean = np.einsum("tn,tbn->bn", share, looks)
    narrow, part = (looks - mean).astype(np.float32), share.astype(np.float32)
    spread = np.einsum("tn,tbn,tbn->n", part, narrow, narrow)
    rounding = np.float32(BENT**2) * spread + np.float32(1e-20)
    centre = np.zeros(mean.shape, np.float32)
    for _ in range(WEISZFELD_STEPS):
        here = _look_around(narrow, part, centre, rounding=rounding)
        centre += here.pull / np.maximum(here.stiffness, np.float32(1e-30))
    answer, settled = _try_nearest(looks, share, mean + centre, here.distance)
    left = np.flatnonzero(~settled)
    narrow, part, rounding = _columns(left, narrow, part, rounding)
    looks, share, mean, start = _columns(left, looks, share, mean, answer)
    centre = (start - mean).astype(np.float32)
    with np.errstate(all="ignore"):
        for trust in TRUSTS:
            here = _look_around(narrow, part, centre, rounding=rounding)
            centre += _newton_step(here, trust=trust)[0]
        start = mean + np.where(np.isfinite(centre), centre, 0)
        here = _look_around(looks, share, start)
        step, least = _newton_step(here.rounded())
        good = _remaining(here, step, least) <= tolerance
    answer[:, left] = np.where(good, start + step, start)
    settled[left] = good
    return answer, settled


def _try_nearest(
    looks: np.ndarray, share: np.ndarray, centre: np.ndarray, distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return a centre that is no worse, and whether it is a look that is the minimum.

    Asked is the nearest look, where it is much nearer than the others are on average.
    """
    centre = centre.copy()
    seen = np.where(share > 0, distance, np.inf)
    nearest = seen.argmin(axis=0)
    close = seen.min(axis=0) < NEAR * np.einsum("tn,tn->n", share, distance)
    tried = np.flatnonzero(close)
    is_minimum = np.zeros(close.shape, bool)
    few, parts, start = _columns(tried, looks, share, centre)
    look = np.take_along_axis(few, nearest[tried][None, None], axis=0)[0]
    centre[:, tried], is_minimum[tried] = _leave(few, parts, look, start)
    return centre, is_minimum


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
    few, parts, centre = _columns(active, looks, share, answer)
    look = _least(few, _summed_distances(few, parts))
    answer[:, active], is_minimum = _leave(few, parts, look, centre)
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
        few = _columns(active, looks, share, centre)
        centre[:, active], settled = _descend(*few, tolerance=tolerance)
        active = active[~settled]
    return active


def _leave(
    looks: np.ndarray, share: np.ndarray, look: np.ndarray, centre: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the better of the centre and the step of Vardi & Zhang from a look, ``(B, N)``.

    Where the look itself is the minimum, return it, and that it is, ``(N,)``.
    """
    offset = looks - look
    distance = np.sqrt(np.einsum("tbn,tbn->tn", offset, offset))
    closeness = np.divide(share, distance, out=np.zeros_like(distance), where=distance > 0)
    pull = np.einsum("tn,tbn->bn", closeness, offset)
    strength = np.sqrt(np.einsum("bn,bn->n", pull, pull))
    held = np.where(distance > 0, 0, share).sum(axis=0)
    is_minimum = strength <= held * (1 + 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = np.where(is_minimum, 0, (1 - held / strength) / closeness.sum(axis=0))
    away = look + reach * pull
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
        few, parts, start, way = _columns(left, looks, share, centre, step)
        trial = start + length * way
        after = _mean_distance(few, parts, trial)
        lower = after <= cost[left] * (1 + 1e-14) - length * gain[left]
        end[:, left[lower]] = trial[:, lower]
        left = left[~lower]
    return end, settled


def _mean_distance(looks: np.ndarray, share: np.ndarray, centre: np.ndarray) -> np.ndarray:
    offset = looks - centre
    return np.einsum("tn,tn->n", share, np.sqrt(np.einsum("tbn,tbn->tn", offset, offset)))
