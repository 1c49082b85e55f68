"""The point nearest to all looks of a pixel: plain loops, compiled.

Pixels are taken in blocks, so that each innermost loop runs over neighbours in memory and
becomes vector instructions. :func:`unveil.composites.geometric_median` says what is computed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from unveil.compiled import compiled

LANES = 128
"""Pixels of a block: what is known of them stays in the cache."""
WEISZFELD_STEPS = 2
NEWTON_STEPS, MEDOID_TURN = (3, 2, 4, 8, 16, 64), 2
"""Of all pixels; then of those that are not settled yet, first from where they are, then from
their medoid."""
LEAST_GAIN, SHORTEST, TRIALS = 0.05, 0.01, 5
"""Share of what Newton's step promises that it must keep, and the least part of it that is
tried, each a quarter of the one before; then comes Weiszfeld's."""
TINY = 1e-300


class Block(NamedTuple):
    """Some pixels and what their centres see.

    Attributes:
        looks: ``(T, B, lanes)``.
        share: ``(T, lanes)``, weights that sum to 1.
        centre: ``(B, lanes)``.
        settled: ``(lanes,)`` bool, within the tolerance.
        offset: ``(B, lanes)``, from the centre to a look.
        distance: ``(lanes,)``, to that look, never 0.
        closeness: ``(lanes,)``, its weight over its distance.
        bend: ``(lanes,)``, that over its distance twice.
        cost: ``(lanes,)``, mean distance.
        stiffness: ``(lanes,)``, summed closeness, the largest curvature.
        sharpness: ``(lanes,)``, summed closeness over distance.
        nearest: ``(lanes,)``, the least distance.
        which: ``(lanes,)``, the look there.
        pull: ``(B, lanes)``, downhill gradient of the mean distance.
        curvature: ``(B, B, lanes)``, upper half.
        step: ``(B, lanes)``, the next step.
        least: ``(lanes,)``, bound from below of the least curvature.
        length: ``(lanes,)``, part of the step that is made.
        goal: ``(B, lanes)``, where that leads.
    """

    looks: np.ndarray
    share: np.ndarray
    centre: np.ndarray
    settled: np.ndarray
    offset: np.ndarray
    distance: np.ndarray
    closeness: np.ndarray
    bend: np.ndarray
    cost: np.ndarray
    stiffness: np.ndarray
    sharpness: np.ndarray
    nearest: np.ndarray
    which: np.ndarray
    pull: np.ndarray
    curvature: np.ndarray
    step: np.ndarray
    least: np.ndarray
    length: np.ndarray
    goal: np.ndarray


@compiled
def fill(
    looks: np.ndarray, share: np.ndarray, seen: np.ndarray, tolerance: float, answer: np.ndarray
) -> None:
    """Fill ``answer`` ``(B, N)`` with the geometric medians of looks ``(T, B, N)``.

    Args:
        looks: float64, finite.
        share: ``(T, N)`` float64, sums to 1.
        seen: ``(M,)`` int64, pixels to fill.
        tolerance: most distance from the minimum.
        answer: float64.
    """
    dates, bands, _ = looks.shape
    block = _new_block(dates, bands, LANES)
    chosen, left = np.zeros(LANES, np.int64), seen.copy()
    for turn in range(len(NEWTON_STEPS)):
        unsettled = 0
        for first in range(0, len(left), LANES):
            lanes = min(LANES, len(left) - first)
            chosen[:lanes] = left[first : first + lanes]
            chosen[lanes:] = chosen[0]
            _load(looks, share, answer, chosen, block)
            if turn == 0:
                _approach(block)
                _leave(block, 1.0 - 1e-9)  # of equally good looks the first is kept for later
            elif turn == MEDOID_TURN:
                _choose_medoids(block)
                _leave(block, 1.0 + 1e-12)
            _descend(block, NEWTON_STEPS[turn], tolerance)
            for b in range(bands):
                for p in range(lanes):
                    answer[b, chosen[p]] = block.centre[b, p]
            for p in range(lanes):
                left[unsettled] = chosen[p]
                unsettled += not block.settled[p]
        left = left[:unsettled]


@compiled
def _new_block(dates: int, bands: int, lanes: int) -> Block:
    return Block(
        np.empty((dates, bands, lanes)),
        np.empty((dates, lanes)),
        np.empty((bands, lanes)),
        np.empty(lanes, np.bool_),
        np.empty((bands, lanes)),
        np.empty(lanes),
        np.empty(lanes),
        np.empty(lanes),
        np.empty(lanes),
        np.empty(lanes),
        np.empty(lanes),
        np.empty(lanes),
        np.empty(lanes, np.int64),
        np.empty((bands, lanes)),
        np.empty((bands, bands, lanes)),
        np.empty((bands, lanes)),
        np.empty(lanes),
        np.empty(lanes),
        np.empty((bands, lanes)),
    )


@compiled
def _load(
    looks: np.ndarray, share: np.ndarray, centre: np.ndarray, chosen: np.ndarray, block: Block
) -> None:
    dates, bands, lanes = block.looks.shape
    for t in range(dates):
        for p in range(lanes):
            block.share[t, p] = share[t, chosen[p]]
        for b in range(bands):
            for p in range(lanes):
                block.looks[t, b, p] = looks[t, b, chosen[p]]
    for b in range(bands):
        for p in range(lanes):
            block.centre[b, p] = centre[b, chosen[p]]
    block.settled[:] = False


@compiled
def _approach(block: Block) -> None:
    """Lead centres from the mean look to near the minimum by Weiszfeld's steps."""
    dates, bands, lanes = block.looks.shape
    block.centre[:] = 0.0
    for t in range(dates):
        for b in range(bands):
            for p in range(lanes):
                block.centre[b, p] += block.share[t, p] * block.looks[t, b, p]
    for _ in range(WEISZFELD_STEPS):
        _look_around(block, False)
        for b in range(bands):
            for p in range(lanes):
                block.centre[b, p] += block.pull[b, p] / block.stiffness[p]


@compiled
def _look_around(block: Block, curved: bool) -> None:
    """Renew what the centres see, with the curvature if asked."""
    dates, bands, lanes = block.looks.shape
    block.cost[:] = 0.0
    block.stiffness[:] = 0.0
    block.sharpness[:] = 0.0
    block.nearest[:] = np.inf
    block.pull[:] = 0.0
    if curved:
        block.curvature[:] = 0.0
    for t in range(dates):
        _measure(block, t, block.centre)
        for p in range(lanes):
            block.cost[p] += block.share[t, p] * block.distance[p]
            block.closeness[p] = block.share[t, p] / block.distance[p]
            block.stiffness[p] += block.closeness[p]
        for p in range(lanes):
            nearer = (block.share[t, p] > 0.0) & (block.distance[p] < block.nearest[p])
            block.which[p] = t if nearer else block.which[p]
            block.nearest[p] = block.distance[p] if nearer else block.nearest[p]
        for b in range(bands):
            for p in range(lanes):
                block.pull[b, p] += block.closeness[p] * block.offset[b, p]
        if curved:
            _bend(block)
    if curved:
        for b in range(bands):
            for p in range(lanes):
                block.curvature[b, b, p] += block.stiffness[p]


@compiled
def _bend(block: Block) -> None:
    """Take a look's part off the curvature."""
    bands, lanes = block.offset.shape
    for p in range(lanes):
        inverse = 1.0 / block.distance[p]
        block.sharpness[p] += block.closeness[p] * inverse
        block.bend[p] = block.closeness[p] * inverse * inverse
    bent = block.least  # not known yet
    for b in range(bands):
        for p in range(lanes):
            bent[p] = block.bend[p] * block.offset[b, p]
        for c in range(b, bands):
            for p in range(lanes):
                block.curvature[b, c, p] -= bent[p] * block.offset[c, p]


@compiled
def _measure(block: Block, t: int, point: np.ndarray) -> None:
    """Set offset and distance from points ``(B, lanes)`` to a look."""
    bands, lanes = point.shape
    block.distance[:] = TINY
    for b in range(bands):
        for p in range(lanes):
            block.offset[b, p] = block.looks[t, b, p] - point[b, p]
            block.distance[p] += block.offset[b, p] * block.offset[b, p]
    for p in range(lanes):
        block.distance[p] = math.sqrt(block.distance[p])


@compiled
def _descend(block: Block, steps: int, tolerance: float) -> None:
    """Move centres by Newton steps that lower the mean distance, Weiszfeld's where none does."""
    for _ in range(steps):
        if block.settled.all():
            break
        block.length[:] = np.where(block.settled, 0.0, 1.0)
        _look_around(block, True)
        _solve(block)
        _judge(block, tolerance)
        _shorten(block)
        block.centre[:] = block.goal


@compiled
def _solve(block: Block) -> None:
    """Set Newton's step, by plain elimination, and the bound of the least curvature.

    The curvature is stiffness times (identity minus a matrix of trace 1), so that its largest
    B - 1 eigenvalues are no larger than the stiffness, and the least one no smaller than
    the determinant over the stiffness to that power.
    """
    matrix, step = block.curvature, block.step
    bands, lanes = step.shape
    step[:] = block.pull
    block.least[:] = block.stiffness
    for j in range(bands):
        for i in range(j + 1, bands):
            for p in range(lanes):
                block.bend[p] = matrix[j, i, p] / matrix[j, j, p]
                step[i, p] -= block.bend[p] * step[j, p]
            for k in range(i, bands):
                for p in range(lanes):
                    matrix[i, k, p] -= block.bend[p] * matrix[j, k, p]
        for p in range(lanes):
            block.least[p] *= matrix[j, j, p] / block.stiffness[p]
    for j in range(bands - 1, -1, -1):
        for p in range(lanes):
            step[j, p] /= matrix[j, j, p]
        for i in range(j):
            for p in range(lanes):
                step[i, p] -= matrix[i, j, p] * step[j, p]


@compiled
def _judge(block: Block, tolerance: float) -> None:
    """Find which centres Newton's step leads within the tolerance of the minimum.

    The third derivative of a distance d is at most 1.16 / d², so that Newton leaves at most
    0.58 step² sum(weight / d²) / least curvature, where each d may shrink by two steps, if
    that is no more than a quarter of the step (Kantorovich's theorem). What is rounded off in
    the curvature leaves a small share of the step.
    """
    bands, lanes = block.step.shape
    squared = block.distance
    squared[:] = 0.0
    for b in range(bands):
        for p in range(lanes):
            squared[p] += block.step[b, p] * block.step[b, p]
    for p in range(lanes):
        way = math.sqrt(squared[p])
        shrunk = 1.0 - 2.0 * way / block.nearest[p]
        third = block.sharpness[p] / (shrunk * shrunk)
        rounded = 2e-15 * block.stiffness[p]
        left = (0.58 * third * squared[p] + rounded * way) / block.least[p]
        known = (shrunk > 0.0) & (left <= 0.25 * way) & (block.least[p] > 10.0 * rounded)
        block.settled[p] |= known & (left <= tolerance)


@compiled
def _shorten(block: Block) -> None:
    """Set goals: as far along Newton's step as the mean distance falls, else Weiszfeld's step.

    A step that ends within the tolerance is made whole, and none where that was so before.
    """
    bands, lanes = block.goal.shape
    gain, cost = block.bend, block.closeness
    gain[:] = 0.0
    for b in range(bands):
        for p in range(lanes):
            gain[p] += LEAST_GAIN * block.step[b, p] * block.pull[b, p]
    for _ in range(TRIALS):
        for b in range(bands):
            for p in range(lanes):
                ahead = block.centre[b, p] + block.length[p] * block.step[b, p]
                block.goal[b, p] = ahead if block.length[p] > 0.0 else block.centre[b, p]
        _average(block, block.goal, cost)
        worse = False
        for p in range(lanes):
            lower = cost[p] <= block.cost[p] * (1.0 + 1e-14) - block.length[p] * gain[p]
            fine = block.settled[p] | (lower & (gain[p] >= 0.0))
            block.length[p] *= 1.0 if fine else 0.25
            worse |= not fine
        if not worse:
            break
        for p in range(lanes):
            if 0.0 < block.length[p] < SHORTEST:
                block.step[:, p] = block.pull[:, p] / block.stiffness[p]
                block.length[p], gain[p] = 1.0, 0.0


@compiled
def _average(block: Block, points: np.ndarray, answer: np.ndarray) -> None:
    """Set the mean distances ``(lanes,)`` from points ``(B, lanes)``."""
    dates, lanes = block.share.shape
    answer[:] = 0.0
    for t in range(dates):
        _measure(block, t, points)
        for p in range(lanes):
            answer[p] += block.share[t, p] * block.distance[p]


@compiled
def _choose_medoids(block: Block) -> None:
    """Set the first look with the least mean distance.

    A look that is the minimum is the medoid; elsewhere the way away from the medoid leads below
    every look, so that steps which lower the mean distance never meet one.
    """
    dates, lanes = block.share.shape
    block.nearest[:] = np.inf
    for t in range(dates):
        _average(block, block.looks[t], block.cost)
        for p in range(lanes):
            if block.share[t, p] > 0.0 and block.cost[p] < block.nearest[p]:
                block.which[p], block.nearest[p] = t, block.cost[p]


@compiled
def _leave(block: Block, hold: float) -> None:
    """Settle centres at a look that is the minimum; else try the step of Vardi & Zhang from it."""
    dates, bands, lanes = block.looks.shape
    goal, held, strength = block.goal, block.least, block.bend
    for b in range(bands):
        for p in range(lanes):
            goal[b, p] = block.looks[block.which[p], b, p]
    held[:] = 0.0
    strength[:] = 0.0
    block.stiffness[:] = 0.0
    block.pull[:] = 0.0
    for t in range(dates):
        _measure(block, t, goal)
        for p in range(lanes):
            there = block.distance[p] < 1e-140
            block.closeness[p] = 0.0 if there else block.share[t, p] / block.distance[p]
            held[p] += block.share[t, p] if there else 0.0
            block.stiffness[p] += block.closeness[p]
        for b in range(bands):
            for p in range(lanes):
                block.pull[b, p] += block.closeness[p] * block.offset[b, p]
    for b in range(bands):
        for p in range(lanes):
            strength[p] += block.pull[b, p] * block.pull[b, p]
    for p in range(lanes):
        strength[p] = math.sqrt(strength[p])
        block.settled[p] = strength[p] <= held[p] * hold
        reach = (1.0 - held[p] / strength[p]) / block.stiffness[p]
        block.length[p] = 0.0 if block.settled[p] else reach
    for b in range(bands):
        for p in range(lanes):
            goal[b, p] += block.length[p] * block.pull[b, p]
    _average(block, block.centre, block.cost)
    _average(block, goal, block.nearest)
    for b in range(bands):
        for p in range(lanes):
            better = block.settled[p] | (block.nearest[p] <= block.cost[p])
            block.centre[b, p] = goal[b, p] if better else block.centre[b, p]
