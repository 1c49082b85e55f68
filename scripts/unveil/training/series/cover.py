"""What hides a sample: the cover of its target, gaps and missed cloud of its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from unveil.assembly.simulated_clouds import (
    CLOUD_OPACITY,
    CloudOptions,
    SimulatedClouds,
    apply_clouds,
    simulate_clouds,
)
from unveil.bands import CLEAR, CLOUD
from unveil.places.series import Series
from unveil.scene import is_occluded
from unveil.training.series.options import SampleOptions
from unveil.training.vary import draw_cloud_options, draw_turn


@dataclass(frozen=True)
class Cover:
    """What hides a target.

    Attributes:
        hidden: ``(H, W)`` bool.
        look: how it looks: clouds that were generated or given a borrowed shape, or the pixels
            ``(B, H, W)`` of a real cloud of another date.
    """

    hidden: np.ndarray
    look: SimulatedClouds | np.ndarray


def draw_cover(
    window: Series, series: Sequence[Series], options: SampleOptions, rng: np.random.Generator
) -> Cover:
    """Draw full cover, or the shape of a real cloud of any place, of this one, or of none."""
    shape = window.classes.shape[1:]
    if rng.random() < options.overcast:
        return Cover(np.ones(shape, bool), _thickened(np.ones(shape, bool), rng))
    borrowed = _borrow_shape(series, shape, options, rng)
    if borrowed is not None:
        return Cover(borrowed, _thickened(borrowed, rng))
    occluded = is_occluded(window.classes)
    share = occluded.mean(axis=(1, 2))
    real = np.flatnonzero((share > 0.1) & (share < 0.99))
    if len(real) and rng.random() < 0.5:
        turn, date = draw_turn(rng), rng.choice(real)
        hidden, pixels = turn(occluded[date]), turn(window.reflectance[date])
        if hidden.shape == shape:
            return Cover(hidden, pixels)
    cover = float(np.clip(1 - rng.beta(0.8, 1.3), 0.05, 0.99))
    clouds = simulate_clouds(shape, cover=cover, rng=rng, options=draw_cloud_options(rng))
    return Cover(is_occluded(clouds.classes), clouds)


def painted(
    truth: np.ndarray, cover: Cover, bands: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """Return the target as it looks under its cover."""
    if isinstance(cover.look, SimulatedClouds):
        return np.clip(apply_clouds(truth, cover.look, bands=bands, rng=rng), 0, 1.5)
    return np.where(cover.hidden & np.isfinite(cover.look).all(axis=0), cover.look, truth)


def add_gaps(
    classes: np.ndarray,
    series: Sequence[Series],
    options: SampleOptions,
    rng: np.random.Generator,
) -> np.ndarray:
    """Call a part of some frames cloud, in real and in simulated shapes; in place."""
    shape = classes.shape[1:]
    for t in np.flatnonzero(rng.random(len(classes)) < 0.5):
        borrowed = _borrow_shape(series, shape, options, rng)
        if borrowed is None:
            clouds = simulate_clouds(shape, cover=float(rng.beta(1, 1.5)), rng=rng)
            borrowed = is_occluded(clouds.classes)
        classes[t][borrowed] = CLOUD
    return classes


def miss_clouds(
    context: np.ndarray, classes: np.ndarray, bands: tuple[str, ...], rng: np.random.Generator
) -> np.ndarray:
    """Put haze that no mask knows on some frames, and call a part of the clouds clear."""
    shape = classes.shape[1:]
    for t in np.flatnonzero(rng.random(len(classes)) < 0.3):
        thin = CloudOptions(edge=rng.uniform(0.5, 2.5), max_opacity=rng.uniform(0.12, 0.5))
        clouds = simulate_clouds(shape, cover=float(rng.uniform(0.1, 0.9)), rng=rng, options=thin)
        context[t] = apply_clouds(context[t], clouds, bands=bands, rng=rng)
    if rng.random() < 0.5:
        clouds = simulate_clouds(shape, cover=float(rng.uniform(0.05, 0.3)), rng=rng)
        missed = is_occluded(clouds.classes)
        lost = is_occluded(classes) & missed & np.isfinite(context).all(axis=1)
        classes = np.where(lost, CLEAR, classes).astype(np.uint8)
    return classes


def _borrow_shape(
    series: Sequence[Series],
    shape: tuple[int, int],
    options: SampleOptions,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Return a part of a real cloud mask of any place, enlarged where the place is smaller."""
    bank = [mask for place in series for mask in place.cloud_shapes]
    if not bank or rng.random() >= options.borrowed:
        return None
    mask = draw_turn(rng)(bank[rng.integers(len(bank))])
    times = max(-(-want // have) for want, have in zip(shape, mask.shape, strict=True))
    mask = mask.repeat(times, axis=0).repeat(times, axis=1)
    row, col = (int(rng.integers(h - w + 1)) for h, w in zip(mask.shape, shape, strict=True))
    return mask[row : row + shape[0], col : col + shape[1]]


def _thickened(hidden: np.ndarray, rng: np.random.Generator) -> SimulatedClouds:
    """Return clouds of a given shape: thin at the rim, thin or opaque inside, no shadow."""
    options = draw_cloud_options(rng)
    depth = distance_transform_edt(np.pad(hidden, 1))[1:-1, 1:-1] / rng.uniform(1, 6)
    if hidden.all():
        depth = np.ones(hidden.shape)
    rise = np.clip(depth, 0, 1)
    alpha = options.max_opacity * rise * rise * (3 - 2 * rise)
    alpha = np.where(hidden, np.maximum(alpha, 2 * CLOUD_OPACITY), 0).astype(np.float32)
    classes = np.where(hidden, CLOUD, CLEAR).astype(np.uint8)
    return SimulatedClouds(alpha, np.zeros_like(alpha), classes)
