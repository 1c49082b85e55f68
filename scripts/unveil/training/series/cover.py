"""What hides a sample: the cover of its target, gaps and missed cloud of its context."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unveil.assembly.simulated_clouds import (
    CloudOptions,
    apply_clouds,
    simulate_clouds,
)
from unveil.bands import CLEAR, CLOUD
from unveil.places.series import Series
from unveil.scene import is_occluded
from unveil.training.series.options import SampleOptions
from unveil.training.vary import draw_cloud_options, draw_turn


def draw_cover(
    window: Series, series: Sequence[Series], options: SampleOptions, rng: np.random.Generator
) -> np.ndarray:
    """Draw what hides a target, ``(H, W)`` bool.

    It is full cover, or the shape of a real cloud of any place or of this one, or generated.
    """
    shape = window.classes.shape[1:]
    if rng.random() < options.overcast:
        return np.ones(shape, bool)
    borrowed = _borrow_shape(series, shape, options, rng)
    if borrowed is not None:
        return borrowed
    occluded = is_occluded(window.classes)
    share = occluded.mean(axis=(1, 2))
    real = np.flatnonzero((share > 0.1) & (share < 0.99))
    if len(real) and rng.random() < 0.5:
        hidden = draw_turn(rng)(occluded[rng.choice(real)])
        if hidden.shape == shape:
            return hidden
    cover = float(np.clip(1 - rng.beta(0.8, 1.3), 0.05, 0.99))
    clouds = simulate_clouds(shape, cover=cover, rng=rng, options=draw_cloud_options(rng))
    return is_occluded(clouds.classes)


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
