"""The veil: what thin cloud, haze and rims add to the pixels that a mask calls clear.

A donor lends a transplant its whole sky. Where its mask calls it clear, its *excess* over the
ground is measured against a composite of its own context, smoothed, and added to the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil import raster
from unveil.bands import REFLECTANCE_SCALE
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.composites import geometric_median
from unveil.distance import distance_from
from unveil.scene import is_clear, is_occluded
from unveil.sources.base import SourceSeries
from unveil.sources.selection import days_between

DAYS = 30.0
"""Time constant of the composite's weights exp(-days / 30): land changes within a season."""
HAZE_PX = 20.0
"""Constant of the weights 1 - exp(-px / 20) by the distance from a date's own cloud and shadow:
nearer pixels of it are hazy themselves, and would hide a third of the excess."""
TRUSTED_PX = 60
"""Distance beyond which pixels are trusted alike."""
SIGMA_PX = 2.0
"""Width of the Gaussian that smooths an excess."""
REACH_PX = 8
"""Pixels that it looks at on each side."""
MOST_DATES = 24
"""Dates of the composite, the nearest; those beyond weigh little and cost as much."""
STRIP_ROWS = 64
"""Rows whose composite is held in float64 at once."""
MOST_DN = 65535
MEASURED, GENERATED, OFF = "measured", "generated", "none: veil is false"
NO_GROUND = "none: no other date with a mask is clear where the donor is"
"""What is recorded of a transplant's veil."""


def measure_excess(
    donor: np.ndarray,
    looks: np.ndarray,
    clear: np.ndarray,
    *,
    days: Sequence[int],
    distance: np.ndarray,
) -> np.ndarray:
    """Return what an image has more than its ground, ``(B, H, W)`` float64.

    The ground is the geometric median of other dates, weighted exp(-days / 30) times
    1 - exp(-px / 20) of their distance from cloud. It is NaN where none of them is clear, and so
    is the excess.

    Args:
        donor: ``(B, H, W)`` reflectance or DN, NaN where nodata.
        looks: ``(T, B, H, W)`` in the same unit, of other dates.
        clear: ``(T, H, W)`` bool, where these are to be used.
        days: ``(T,)`` days between each of them and the donor.
        distance: ``(T, H, W)`` pixels from the cloud and shadow of these, at least 1 where clear.
    """
    known = clear & np.isfinite(looks).all(axis=1)
    flat = np.where(known[:, None], looks, 0.0).reshape(*looks.shape[:2], -1).astype(np.float64)
    seen = known.reshape(len(looks), -1)
    near = np.exp(-np.abs(np.asarray(days, np.float64)) / DAYS)[:, None]
    weights = near * -np.expm1(-distance.reshape(len(looks), -1) / HAZE_PX)
    ground = geometric_median(flat, seen, weights=weights)
    ground[:, ~seen.any(axis=0)] = np.nan
    return donor - ground.reshape(donor.shape)


def smooth_excess(excess: np.ndarray, use: np.ndarray) -> np.ndarray:
    """Smooth an excess by a normalised Gaussian over the pixels to be used, ``(B, H, W)``.

    Both signs are kept. Where no pixel within reach is known, nothing is added.

    Args:
        excess: ``(B, H, W)``, NaN where unknown.
        use: ``(H, W)`` bool; others lend nothing to their neighbours.
    """
    from scipy.ndimage import gaussian_filter  # lazy: a dry run smooths nothing

    use = use & np.isfinite(excess).all(axis=0)
    kernel = {"sigma": SIGMA_PX, "mode": "constant", "radius": REACH_PX}
    weight = gaussian_filter(use.astype(np.float64), **kernel)
    total = np.stack([gaussian_filter(np.where(use, band, 0.0), **kernel) for band in excess])
    enough = weight > 1e-9
    return np.where(enough, total / np.where(enough, weight, 1.0), 0.0)


@dataclass(frozen=True)
class Veil:
    """The veil of a donor over one place, made window by window.

    Attributes:
        over: gives the DN ``(B, H, W)`` uint16 of a window of the truth under the veil.
        facts: recorded with the scene: ``veil`` is :data:`MEASURED`, or why there is none;
            ``veil_dates`` the dates of the ground; ``veil_known`` the share of the donor's clear
            pixels whose ground these know.
    """

    over: Callable[[np.ndarray, Window], np.ndarray]
    facts: dict[str, Any] = field(default_factory=dict)


def no_veil(reason: str) -> Veil:
    """Return what leaves the truth as it is, with the reason that is recorded."""
    return Veil(lambda truth, window: truth, {"veil": reason})


def veil_of_donor(series: SourceSeries, donor: str, *, withheld: str, clear: np.ndarray) -> Veil:
    """Return the veil that a donor lends to another date.

    The withheld date is no part of the donor's context, so nothing of the truth that the donor
    hides reaches an input.

    Args:
        series: all dates of the place, on one set of bands.
        donor: the date that lends its sky.
        withheld: the date of the truth.
        clear: ``(H, W)`` bool, where the donor's grown mask calls it clear and it has data.
    """
    dates = donor_context(series, donor, withheld)
    ground = _Ground(series, dates, [days_between(date, donor) for date in dates])
    if not clear.any():
        return no_veil("none: no pixel of the donor is called clear")
    known = _known_share(ground, clear)
    if known == 0:
        return no_veil(NO_GROUND)
    lender = series.optical[donor]

    def over(truth: np.ndarray, window: Window) -> np.ndarray:
        outer = series.grid.with_halo(window, REACH_PX)
        use = clear[outer.toslices()]
        if not use.any():
            return truth
        excess = ground.excess(_reflectance(lender.read(outer)), outer)
        added = smooth_excess(excess, use)[(slice(None), *raster.within(window, outer))]
        return add_excess(truth, added)

    return Veil(over, {"veil": MEASURED, "veil_dates": len(dates), "veil_known": round(known, 4)})


def donor_context(series: SourceSeries, donor: str, withheld: str) -> list[str]:
    """Return the dates that tell a donor's ground: the nearest with a mask, sorted."""
    others = set(series.optical) & set(series.masks) - {donor, withheld}
    return sorted(sorted(others, key=lambda d: (days_between(d, donor), d))[:MOST_DATES])


def add_excess(truth: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Return DN with an excess in reflectance added, ``(B, H, W)`` uint16.

    What has data keeps data: DN are at least 1. Nodata stays nodata.
    """
    shifted = np.rint(truth + excess * REFLECTANCE_SCALE)
    return np.where(truth == 0, 0, np.clip(shifted, 1, MOST_DN)).astype(np.uint16)


@dataclass(frozen=True)
class _Ground:
    """The dates that tell a donor's ground, and how far each is from it."""

    series: SourceSeries
    dates: Sequence[str]
    days: Sequence[int]

    def clear(self, date: str, window: Window) -> np.ndarray:
        """Return where the grown mask of a date calls a window clear, ``(H, W)`` bool."""
        return is_clear(self._grown(date, window))

    def distance(self, date: str, window: Window) -> np.ndarray:
        """Return the distance from the grown cloud and shadow of a date, ``(H, W)`` pixels."""
        outer = self.series.grid.with_halo(window, TRUSTED_PX)
        hidden = is_occluded(self._grown(date, outer))
        return distance_from(hidden, reach=TRUSTED_PX)[raster.within(window, outer)]

    def _grown(self, date: str, window: Window) -> np.ndarray:
        outer = self.series.grid.with_halo(window, HIDDEN_GROWTH_PX)
        mask = self.series.masks[date]
        classes = classmap.from_delivered(mask.read(outer)[0], mask.bands[0])
        return classmap.dilate(classes, HIDDEN_GROWTH_PX)[raster.within(window, outer)]

    def excess(self, donor: np.ndarray, window: Window) -> np.ndarray:
        """Return the excess of a donor's window over it, ``(B, H, W)`` reflectance."""
        looks = np.stack([self.series.optical[date].read(window) for date in self.dates])
        clear = np.stack([self.clear(date, window) for date in self.dates])
        distance = np.stack([self.distance(date, window) for date in self.dates])
        excess = np.empty(donor.shape)
        for top in range(0, donor.shape[1], STRIP_ROWS):
            rows = slice(top, top + STRIP_ROWS)
            excess[:, rows] = measure_excess(
                donor[:, rows],
                _reflectance(looks[:, :, rows]),
                clear[:, rows],
                days=self.days,
                distance=distance[:, rows],
            )
        return excess


def _known_share(ground: _Ground, clear: np.ndarray) -> float:
    """Return the share of clear pixels of the donor that some date of its context sees."""
    known = 0
    for window in ground.series.grid.windows():
        open_ = clear[window.toslices()].copy()
        for date in ground.dates:
            if not open_.any():
                break
            seen = ground.clear(date, window) & open_
            known += int(np.count_nonzero(seen))
            open_ &= ~seen
    return known / int(np.count_nonzero(clear))


def _reflectance(dn: np.ndarray) -> np.ndarray:
    return np.where(dn == 0, np.nan, dn / REFLECTANCE_SCALE)
