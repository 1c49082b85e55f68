"""Training samples for networks on series: real dates of real places, hidden by real clouds.

A sample is a date of a series that is nearly clear, put under a cloud mask, with other dates
of the series as context. Where a place has one clear date only, its parcels follow changes
that were observed on parcels of another series. Everything is varied as it varies between
places and seasons: geometry, brightness, the number of frames, gaps, and clouds and haze
that a mask missed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from unveil.bands import CLOUD, CORE6
from unveil.errors import InputError
from unveil.models.chronos.learning import Sample
from unveil.places.series import NO_MASKS, Series
from unveil.scene import Inputs, is_clear
from unveil.training.series.cover import add_gaps, draw_cover, miss_clouds
from unveil.training.series.follow import follow
from unveil.training.series.options import SampleOptions
from unveil.training.vary import draw_turn

LEAST_CLEAR = 0.97
"""Share of clear pixels of a date that may be a target."""
RADAR_DAYS = 12
"""Most days between a target and its radar date: the repeat cycle of one Sentinel-1."""


def draw_sample(
    series: Sequence[Series],
    images: Sequence[np.ndarray],
    *,
    size: int,
    options: SampleOptions,
    rng: np.random.Generator,
) -> Sample:
    """Draw one scene.

    Args:
        series: real series.
        images: clear ``(6, H, W)`` images in the core bands for parcels that follow others.
        size: edge of the scene in pixels; of smaller series all is taken.
        options: how it is varied.
        rng: the source of all randomness.
    """
    weights = np.array([s.weight for s in series])
    place = series[rng.choice(len(series), p=weights / weights.sum())]
    window = _window(place, size, rng)
    clear_share = is_clear(window.classes).mean(axis=(1, 2))
    target = _draw_target(place.id, clear_share, rng)
    choose = _draw_frames if options.dropped else _all_frames
    frames = choose(window.days, clear_share, target, rng)
    cover = draw_cover(window, series, options, rng)
    radar = _radar_of(window, target) if rng.random() < options.radar else None
    dates = [target, *frames]
    image, classes = window.reflectance[dates], window.classes[dates]
    if images and window.bands == CORE6 and rng.random() < options.synthetic:
        follower = images[int(rng.integers(len(images)))]
        image, radar = follow(follower, window, dates, rng), None
    turn = draw_turn(rng)
    image, classes, radar = turn(image), turn(classes), None if radar is None else turn(radar)
    if options.radiometry:
        image = np.clip(image * np.exp(rng.normal(0, 0.25, (1, image.shape[1], 1, 1))), 0, 1.5)
    truth, context, context_class = image[0], image[1:].copy(), classes[1:].copy()
    if rng.random() < options.gaps:
        context_class = add_gaps(context_class, series, options, rng)
    if rng.random() < options.missed:
        context_class = miss_clouds(context, context_class, window.bands, rng)
    known = is_clear(classes[0]) & np.isfinite(truth).all(axis=0)
    hidden = cover & known
    inputs = Inputs(
        bands=window.bands,
        target=np.where(hidden, 0.5, truth).astype(np.float32),
        target_class=np.where(cover, CLOUD, classes[0]).astype(np.uint8),
        target_probability=np.full(hidden.shape, np.nan, np.float32),
        context=context.astype(np.float32),
        context_class=context_class,
        days=(window.days[frames] - window.days[target]).astype(np.float32),
        sar=radar,
        target_date=dt.date.fromordinal(int(window.days[target])).isoformat(),
        level=window.level,
    )
    return Sample(inputs, np.where(known, truth, np.nan).astype(np.float32), hidden)


def _draw_target(name: str, clear_share: np.ndarray, rng: np.random.Generator) -> int:
    """Draw a clear date with dates before and after it."""
    targets = np.flatnonzero(clear_share >= LEAST_CLEAR)
    targets = targets[(targets > 0) & (targets < len(clear_share) - 1)]
    if not len(targets):
        raise InputError(
            f"{name} has no clear date to hide between two others",
            file="training table",
            field="series",
            remedy="leave it out, or use it under 'images'",
        )
    return int(rng.choice(targets))


def _window(place: Series, size: int, rng: np.random.Generator) -> Series:
    """Cut a window of all dates, smaller where the series is."""
    height, width = place.classes.shape[1:]
    row, col = (int(rng.integers(max(n - size, 0) + 1)) for n in (height, width))
    rows, cols = slice(row, row + size), slice(col, col + size)
    return replace(
        place,
        reflectance=place.reflectance[:, :, rows, cols],
        classes=place.classes[:, rows, cols],
        radar=place.radar[:, :, rows, cols],
        masks=NO_MASKS,
    )


def _radar_of(window: Series, target: int) -> np.ndarray | None:
    """Return the radar of the nearest date within twelve days, ``(2, H, W)``."""
    away = np.abs(window.radar_days - window.days[target])
    if not len(away) or away.min() > RADAR_DAYS:
        return None
    nearest = window.radar[away.argmin()]
    return nearest if np.isfinite(nearest).any() else None


def _draw_frames(
    days: np.ndarray, clear_share: np.ndarray, target: int, rng: np.random.Generator
) -> list[int]:
    """Draw 3...12 other dates, mostly the nearest, some left out."""
    usable = np.flatnonzero((clear_share > 0.05) & (days != days[target]))
    usable = rng.permutation(usable)[: max(3, int(len(usable) * rng.uniform(0.5, 1.0)))]
    count = int(rng.integers(3, 13))
    past = sorted(i for i in usable if days[i] < days[target])[::-1]
    future = sorted(i for i in usable if days[i] > days[target])
    before = int(round(count * rng.choice([0.5, 0.5, 0.5, 1.0, 0.25])))
    chosen = [*past[:before], *future[: count - before]]
    if len(chosen) < 3:
        chosen = [*past[:count], *future[:count]][:count]
    return sorted(int(i) for i in chosen)


def _all_frames(
    days: np.ndarray, clear_share: np.ndarray, target: int, _: np.random.Generator
) -> list[int]:
    """Return the six usable dates before and the six after, as a user would give them."""
    usable = (clear_share > 0.05) & (days != days[target])
    before = np.flatnonzero(usable & (days < days[target]))[-6:]
    after = np.flatnonzero(usable & (days > days[target]))[:6]
    return [int(i) for i in (*before, *after)]
