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
from unveil.distance import distance_from
from unveil.excess import MOST_DN, REACH_PX, TRUSTED_PX, ground_of, smooth_excess
from unveil.scene import is_clear, is_occluded
from unveil.sources.base import SourceSeries
from unveil.sources.selection import days_between

MOST_DATES = 24
"""Dates of the composite, the nearest; those beyond weigh little and cost as much."""
STRIP_ROWS = 64
"""Rows whose composite is held in float64 at once."""
MEASURED, GENERATED, OFF = "measured", "generated", "none: veil is false"
NO_GROUND = "none: no other date with a mask is clear where the donor is"
"""What is recorded of a transplant's veil."""


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
        return add_excess(truth, np.nan_to_num(added))

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
            excess[:, rows] = donor[:, rows] - ground_of(
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
