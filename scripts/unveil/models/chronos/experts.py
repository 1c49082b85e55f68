"""Closed-form answers to a cloudy scene: the ground that the network ``chronos`` stands on.

From clear looks alone come composites; from the clear pixels of the target comes a ridge
regression that leads from composites and single frames to the target, with its penalty
chosen by spatial cross-validation; what it leaves over is spread to the neighbourhood at
several widths. Every answer carries how far it can be trusted on this scene. All sums are
of the whole scene and add up over tiles, so any window of it gets the same answer.

The regression is that of :mod:`unveil.models.regressed` with single frames among its
features; choosing among the penalties by blocks in space and not by pixels follows Roberts
et al. (2017), Ecography 40:913-929, doi:10.1111/ecog.02881.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from scipy.ndimage import gaussian_filter

from unveil.models.chronos.regression import (
    choose,
    cross_validate,
    faded_error,
    line,
    mean_shift,
    ridge,
    shift_error,
    view_lines,
)
from unveil.models.classical import (
    DAMPED_DAYS,
    clear_looks,
    damped_composite,
    nan_median,
    weighted_composite,
)
from unveil.scene import Inputs

EXPERTS = ("regression", "stiff", "composites", "shifted", "faded", "median")
"""Regression with the chosen penalty, with ten times that, on composites only; the faded
composite shifted to the clear pixels' mean, as it is, and the weighted median."""
LONGEST = 24
"""Most context frames that are used."""
SPREADS = (24.0, 12.0, 5.0, 2.0)
"""Widths in pixels at which the residual is spread, each on what the one before left."""
GAUSSIAN_REACH = 4
REACH_PX = round(GAUSSIAN_REACH * SPREADS[0])
CELL_PX = 16
"""Cells of the checkerboard whose two colours are the folds of the cross-validation, in
pixels used."""
HAZE = 0.02
"""Excess of visible reflectance at which a frame's weight falls to 1/e."""
LEAST_SCALE = 0.002
FEWEST = 30
"""Clear pixels a fold below which there is no regression."""
SAMPLE_PIXELS = 4_000_000
_SHRINK = 0.05
_VISIBLE = ("B02", "B03", "B04")


@dataclass(frozen=True)
class FrameFacts:
    """How each context frame differs from the median of the clear looks, over the scene.

    Attributes:
        gain: ``(T, B)`` float64, frame = gain x median + offset.
        offset: ``(T, B)`` reflectance.
        haze: ``(T,)`` mean excess of visible reflectance over the median.
        scale: ``(B,)`` reflectance, what the median cannot foresee of a frame, typically.
    """

    gain: np.ndarray
    offset: np.ndarray
    haze: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class SceneFit:
    """What a scene's clear pixels say.

    Attributes:
        facts: of the frames.
        pixels: clear target pixels that were used.
        coefficients: of the three regressions, ``(1 + F, B)`` each, constant first; empty
            where the target has too few clear pixels.
        shift: ``(B,)`` mean of target minus faded composite, shrunk when pixels are few.
        errors: ``(K, B)`` cross-validated RMSE of the experts, NaN where unknown.
        view_gain: ``(T, B)``, target = gain x frame + offset.
        view_offset: ``(T, B)`` reflectance.
        view_error: ``(T, B)`` RMSE of that.
    """

    facts: FrameFacts
    pixels: int
    coefficients: tuple[np.ndarray, ...]
    shift: np.ndarray
    errors: np.ndarray
    view_gain: np.ndarray
    view_offset: np.ndarray
    view_error: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """The answers for one window; K experts, T frames, S spreads, B bands.

    Attributes:
        experts: ``(K, B, H, W)`` float32 reflectance, in the order of :data:`EXPERTS`.
        views: ``(T, B, H, W)`` float32, the target as each frame foresees it.
        residuals: ``(S, B, H, W)`` float32, spread residuals to be added to the first expert.
        supports: ``(S, H, W)`` float32 0...1, share of clear pixels around.
        roughness: ``(B, H, W)`` float32, mean absolute residual around, 0 without support.
        unrest: ``(B, H, W)`` float32, standard deviation of the views.
        looks: ``(H, W)`` float32, clear looks, near ones count most.
    """

    experts: np.ndarray
    views: np.ndarray
    residuals: np.ndarray
    supports: np.ndarray
    roughness: np.ndarray
    unrest: np.ndarray
    looks: np.ndarray


def fit_scene(tiles: Iterable[Inputs], *, pixels: int) -> SceneFit:
    """Fit all closed forms of a scene in two passes over its tiles.

    Args:
        tiles: the scene's windows without overlap, iterable twice.
        pixels: pixels of the scene; of large ones every n-th row and column is used.
    """
    step = max(1, int(np.ceil(np.sqrt(pixels / SAMPLE_PIXELS))))
    facts = _frame_facts(_thinned(tile, step) for tile in tiles)
    sums: np.ndarray | None = None
    for tile in tiles:
        table = _regression_sums(_thinned(tile, step), facts)
        sums = table if sums is None else sums + table
    assert sums is not None
    return _solve(sums, facts)


def estimate(inputs: Inputs, fit: SceneFit) -> Evidence:
    """Return every closed-form answer for one window.

    Away from the window's rim by :data:`REACH_PX` it does not depend on the window.
    """
    faded = faded_composite(inputs, fit.facts)
    experts = _experts(inputs, fit, faded)
    clear = inputs.target_clear
    views = _views(inputs, fit, experts[0])
    leftover = np.where(clear, np.nan_to_num(inputs.target) - experts[0], 0).astype(np.float32)
    residuals, supports, rest = [], [], leftover
    for sigma in SPREADS:
        support = _smooth(clear.astype(np.float32), sigma)
        spread = np.stack([_smooth(band, sigma) for band in rest]) / (support + _SHRINK)
        rest = np.where(clear, rest - spread, 0)
        residuals.append(spread)
        supports.append(support)
    around = supports[1]
    rough = np.stack([_smooth(np.abs(band), SPREADS[1]) for band in leftover])
    near = np.exp(-np.abs(inputs.days) / DAMPED_DAYS)
    return Evidence(
        experts=experts,
        views=views,
        residuals=np.stack(residuals).astype(np.float32),
        supports=np.stack(supports),
        roughness=np.where(around > 1e-3, rough / np.maximum(around, 1e-3), 0).astype(np.float32),
        unrest=_spread_of_views(views, inputs.context_clear),
        looks=np.tensordot(near, inputs.context_clear, axes=1).astype(np.float32),
    )


def faded_composite(inputs: Inputs, facts: FrameFacts) -> np.ndarray:
    """Return the mean of clear looks, far and hazy frames faded, ``(B, H, W)`` float32.

    Pixels without a clear look take a smooth surface through their neighbours.
    """
    distance = np.abs(inputs.days).astype(np.float64)
    haze = np.maximum(facts.haze, 0)
    fading = (distance - distance.min()) / DAMPED_DAYS + (haze - haze.min()) / HAZE
    composite = weighted_composite(inputs, np.exp(-np.minimum(fading, 25)))
    return _filled(composite, facts)


def _filled(composite: np.ndarray, facts: FrameFacts) -> np.ndarray:
    known = np.isfinite(composite).all(axis=0)
    if known.all():
        return composite
    zeroed = np.where(known, composite, 0).astype(np.float32)
    support = _smooth(known.astype(np.float32), SPREADS[0])
    smooth = np.stack([_smooth(band, SPREADS[0]) for band in zeroed])
    # Beyond the reach of any look there is nothing but a dark guess, marked by no support.
    guess = np.where(support > 1e-4, smooth / np.maximum(support, 1e-4), 0.1)
    return np.where(known, composite, guess).astype(np.float32)


def weighted_median(inputs: Inputs) -> np.ndarray:
    """Return the median of clear looks with weight ``exp(-|days| / 20)``, NaN where none."""
    looks = clear_looks(inputs)
    weights = np.exp(-np.abs(inputs.days) / DAMPED_DAYS).astype(np.float32)
    order = np.argsort(looks, axis=0)
    ranked = np.take_along_axis(looks, order, axis=0)
    total = np.cumsum(np.where(np.isfinite(ranked), weights[order], 0), axis=0)
    half = (total >= total[-1] / 2).argmax(axis=0)
    return np.take_along_axis(ranked, half[None], axis=0)[0]


def _thinned(inputs: Inputs, step: int) -> Inputs:
    if step == 1:
        return inputs
    rows, cols = (slice(-start % step, None, step) for start in inputs.origin)
    row, col = (-(-start // step) for start in inputs.origin)
    return replace(inputs.crop(rows, cols), origin=(row, col))


def _frame_facts(tiles: Iterable[Inputs]) -> FrameFacts:
    """Sum products of frames and median, then solve a line for each frame and band."""
    tables: list[np.ndarray] = []
    visible: list[int] | slice = slice(None)
    for tile in tiles:
        visible = [i for i, name in enumerate(tile.bands) if name in _VISIBLE] or slice(None)
        median = nan_median(clear_looks(tile)).astype(np.float64)
        rows = []
        for frame, clear in zip(tile.context, tile.context_clear, strict=True):
            x, m = frame[:, clear].astype(np.float64), median[:, clear]
            count = np.full(len(x), x.shape[1], np.float64)
            rows.append([count, m.sum(1), x.sum(1), (m * m).sum(1), (m * x).sum(1), (x * x).sum(1)])
        tables.append(np.array(rows))  # (T, 6, B)
    count, m, x, mm, mx, xx = np.moveaxis(reduce(np.add, tables), 1, 0)
    gain, offset, error = line(count, m, x, mm, mx, xx)
    lost = np.maximum(count, 1)
    haze = ((x - m) / lost)[:, visible].mean(axis=1)
    scale = np.sqrt((count * error**2).sum(axis=0) / np.maximum(count.sum(axis=0), 1))
    return FrameFacts(gain, offset, haze, np.maximum(scale, LEAST_SCALE))


def features_of(inputs: Inputs, facts: FrameFacts, faded: np.ndarray) -> np.ndarray:
    """Return the regression's features, ``(F, H, W)`` float32, the constant first.

    After it six composites of B bands each (the faded one leads), then every frame with its
    gaps filled by its line on the median, then VV and VH where there is radar.
    """
    median = nan_median(clear_looks(inputs))
    composites = [
        damped_composite(inputs, 8.0),
        damped_composite(inputs, 60.0),
        damped_composite(inputs, DAMPED_DAYS, inputs.days < 0),
        damped_composite(inputs, DAMPED_DAYS, inputs.days >= 0),
        median,
    ]
    parts = [np.ones((1, *inputs.shape), np.float32), faded]
    parts += [np.where(np.isnan(c), faded, c) for c in composites]
    guide = parts[-1]
    for frame, clear, gain, offset in zip(
        inputs.context, inputs.context_clear, facts.gain, facts.offset, strict=True
    ):
        parts.append(np.where(clear, frame, guide * gain[:, None, None] + offset[:, None, None]))
    if inputs.sar is not None:
        parts.append(_calmed_radar(inputs.sar))
    return np.concatenate(parts, dtype=np.float32)


def _calmed_radar(sar_db: np.ndarray) -> np.ndarray:
    """Return VV and VH in units of 10 dB above -20 dB, 0 where missing."""
    return np.nan_to_num((np.clip(sar_db, -35, 5) + 20) / 10, nan=0.0).astype(np.float32)


def _regression_sums(inputs: Inputs, facts: FrameFacts) -> np.ndarray:
    """Return products of features and target summed over clear pixels, by fold."""
    faded = faded_composite(inputs, facts)
    features = features_of(inputs, facts, faded)
    clear = inputs.target_clear
    rows = (inputs.origin[0] + np.arange(inputs.shape[0])) // CELL_PX
    cols = (inputs.origin[1] + np.arange(inputs.shape[1])) // CELL_PX
    black = (rows[:, None] + cols) % 2 == 0
    sums = []
    for fold in (clear & black, clear & ~black):
        table = np.concatenate([features[:, fold], inputs.target[:, fold]]).astype(np.float64)
        sums.append(table @ table.T)
    return np.stack(sums)


def _solve(sums: np.ndarray, facts: FrameFacts) -> SceneFit:
    frames, bands = facts.gain.shape
    whole = sums.sum(axis=0)
    pixels = int(round(whole[0, 0]))
    shift = mean_shift(whole, bands)
    composites = slice(0, 1 + 6 * bands)
    errors = np.full((len(EXPERTS), bands), np.nan)
    coefficients: tuple[np.ndarray, ...] = ()
    if sums[:, 0, 0].min() >= FEWEST:
        chosen, errors[0] = choose(sums, slice(None), facts.scale, bands)
        errors[1] = cross_validate(sums, slice(None), 10 * chosen, bands)
        small, errors[2] = choose(sums, composites, facts.scale, bands)
        errors[3], errors[4] = shift_error(sums, bands), faded_error(whole, bands)
        errors[5] = errors[4]
        coefficients = (
            ridge(whole, slice(None), chosen, bands),
            ridge(whole, slice(None), 10 * chosen, bands),
            ridge(whole, composites, small, bands),
        )
    elif pixels:
        errors[4] = errors[5] = faded_error(whole, bands)
    view = view_lines(whole, frames, bands)
    return SceneFit(facts, pixels, coefficients, shift, errors, *view)


def _experts(inputs: Inputs, fit: SceneFit, faded: np.ndarray) -> np.ndarray:
    shifted = faded + fit.shift[:, None, None]
    median = weighted_median(inputs)
    median = np.where(np.isnan(median), faded, median)
    if fit.coefficients:
        features = features_of(inputs, fit.facts, faded)
        fitted = [
            np.tensordot(w.T.astype(np.float32), features[: len(w)], axes=1)
            for w in fit.coefficients
        ]
    else:
        fitted = [shifted] * 3
    return np.clip(np.stack([*fitted, shifted, faded, median]), 0, 2).astype(np.float32)


def _views(inputs: Inputs, fit: SceneFit, instead: np.ndarray) -> np.ndarray:
    """Return each frame led to the target, ``instead`` where it is not clear."""
    gain, offset = fit.view_gain[..., None, None], fit.view_offset[..., None, None]
    led = np.nan_to_num(inputs.context) * gain + offset
    return np.where(inputs.context_clear[:, None], led, instead).astype(np.float32)


def _spread_of_views(views: np.ndarray, clear: np.ndarray) -> np.ndarray:
    weight = clear[:, None].astype(np.float32)
    total = np.maximum(weight.sum(axis=0), 1)
    mean = (views * weight).sum(axis=0) / total
    return np.sqrt(((views - mean) ** 2 * weight).sum(axis=0) / total).astype(np.float32)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(values, sigma, mode="constant", truncate=GAUSSIAN_REACH)
