"""Which dates of an opened source may be used, and why the others may not.

Nothing uncertain counts as clear: a date that nothing can judge for cloud is neither target nor
truth nor context. The bands of a scene are those of its target: a date that lacks one is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from rasterio.windows import Window

from unveil.bands import sort_bands
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.scene import is_occluded
from unveil.sources.base import SourceRaster, SourceSeries, Unusable
from unveil.sources.clear import declared_mask
from unveil.sources.selection import choose_radar

LOG = logging.getLogger(__name__)

WATER = 6
"""Of SCL."""
DARK_DN = 5000
"""A pixel of water is nowhere brighter; one of several bands saturated is."""
ZEROS_FACT = "unveil:zeros_over_water"
ZEROS_NOTE = "0 in some bands where SCL says water is data, DN 1"


class Refusal(Protocol):
    """Tells why nothing can judge an image for cloud; empty when something can."""

    def __call__(self, bands: tuple[str, ...], level: str, *, delivered: bool) -> str:
        """Answer for an image of some bands and a level, with a mask delivered or not."""


def made_of_reference(row: SceneRow, series: SourceSeries) -> bool:
    """Whether the target is made of the clear image that the source delivers apart."""
    return PROTOCOLS[row.protocol].clouds == "generated" and series.reference is not None


# --- clouds ---------------------------------------------------------------------------------


def keep_judged(series: SourceSeries, refusal: Refusal) -> SourceSeries:
    """Leave out the dates that nothing can judge for cloud.

    A delivered mask goes before what somebody declares clear; a clear image that is delivered
    apart is declared so by that.
    """
    declared = series.declared_clear & set(series.optical) - set(series.masks)
    masks = {**series.masks, **{date: declared_mask("scene.yaml") for date in declared}}
    series = replace(series, masks=masks)
    level = str(series.facts.get("level", ""))
    blind = {}
    for date, frame in series.optical.items():
        why = refusal(frame.bands, level, delivered=date in series.masks)
        if why:
            blind[date] = Unusable(
                f"nothing can judge its clouds ({why})", _how_to_judge(date, series.declarable)
            )
    series = series.without(blind)
    apart = series.reference
    if apart and not series.reference_mask and refusal(apart.bands, level, delivered=False):
        return replace(series, reference_mask=declared_mask("delivered apart, as the truth"))
    return series


def _how_to_judge(date: str, declarable: bool) -> str:
    if not declarable:
        return (
            "name a detector in masks.detectors that applies to its level and bands, or export the "
            "images to a folder of source local, where masks are delivered and clear dates declared"
        )
    return (
        f"deliver its mask (masks/{date}.tif, one band described SCL or CLASS; a product with its "
        f"SCL image), or, if you looked at it and it is clear, write 'clear: [{date}]' into "
        "scene.yaml of the folder"
    )


# --- bands ----------------------------------------------------------------------------------


def bands_of_target(row: SceneRow, series: SourceSeries) -> tuple[str, ...]:
    """Return the bands of a scene whose target is settled.

    Raises:
        InputError: if the target lacks a band that all other dates have.
    """
    if series.reference is not None and made_of_reference(row, series):
        return series.reference.bands
    target = series.optical[row.target_date]
    others = [set(f.bands) for date, f in series.optical.items() if date != row.target_date]
    lacking = sort_bands(set.intersection(*others) - set(target.bands)) if others else ()
    if lacking:
        raise InputError(
            f"the frame of {row.target_date} ({target.facts.get('unveil:source', 'target')}) has "
            f"no {', '.join(lacking)}, which all other dates have",
            file=row.path,
            field=f"scene {row.scene}: bands",
            remedy="deliver the band (download the product again), or choose another target_date",
        )
    return target.bands


def narrow(row: SceneRow, series: SourceSeries, bands: tuple[str, ...]) -> SourceSeries:
    """Return a series of one set of bands, without the dates that lack one of them.

    Raises:
        InputError: if the clear image that is delivered apart lacks one.
    """
    poor = {}
    for date, frame in series.optical.items():
        lacking = [name for name in bands if name not in frame.bands]
        if lacking:
            poor[date] = Unusable(
                f"it has no {', '.join(lacking)}",
                "deliver the band (download the product again), or name another date",
            )
    series = series.without(poor)
    apart = series.reference
    lacking = [name for name in bands if apart and name not in apart.bands]
    if apart and lacking:
        raise InputError(
            f"the truth ({apart.facts.get('unveil:source', 'reference')}) has no "
            f"{', '.join(lacking)}, which the target has",
            file=row.path,
            field=f"scene {row.scene}: bands",
            remedy="deliver the band, or take it out of the target",
        )
    return replace(
        series,
        optical={date: frame.with_bands(bands) for date, frame in series.optical.items()},
        reference=apart.with_bands(bands) if apart else None,
    )


def keep_water(series: SourceSeries) -> SourceSeries:
    """Take 0 for data where it stands in some bands of a pixel that SCL calls water.

    Processors store what is below zero as 0, which is nodata elsewhere; over water that is
    common in the near infrared. Such a 0 becomes DN 1, the smallest number that is data.
    """
    optical = {
        date: _with_water(frame, series.masks[date])
        if date in series.masks and series.masks[date].bands == ("SCL",)
        else frame
        for date, frame in series.optical.items()
    }
    return replace(series, optical=optical)


def _with_water(frame: SourceRaster, mask: SourceRaster) -> SourceRaster:
    facts = dict(frame.facts)

    def read(window: Window) -> np.ndarray:
        data = frame.read(window)
        if data.all():
            return data
        water = (mask.read(window)[0] == WATER) & data.any(axis=0) & (data.max(axis=0) < DARK_DN)
        zeros = (data == 0) & water
        if zeros.any() and frame.read_zeros:
            zeros &= frame.read_zeros(window)
        if not zeros.any():
            return data
        facts[ZEROS_FACT] = ZEROS_NOTE  # known once it is read, before the frame is recorded
        return np.where(zeros, 1, data).astype(data.dtype)

    return replace(frame, read=read, facts=facts)


# --- copies ---------------------------------------------------------------------------------


def without_copies(
    series: SourceSeries,
    context: Sequence[str],
    used: Mapping[str, SourceRaster],
    *,
    made_clouds: SourceRaster | None,
) -> SourceSeries:
    """Leave out the dates of a context that show target, truth or donor again.

    Looks of one overpass are one look since the source was opened; a file that was copied, or
    delivered twice under two dates, is found by its pixels. Those that are hidden in the target by
    construction are not asked: nothing of the truth there may change what models see.

    Args:
        series: the dates of the scene.
        context: dates that would be the context.
        used: what the scene uses already, by the name that is said of it.
        made_clouds: classes of the clouds that are put on the target; None where they are its own.
    """
    windows = list(series.grid.windows())
    middle = windows[len(windows) // 2]

    def look(image: SourceRaster, window: Window) -> np.ndarray:
        pixels = image.read(window)
        if made_clouds is None:
            return pixels
        return np.where(is_occluded(made_clouds.read(window)[0]), 0, pixels)

    known = {name: look(image, middle) for name, image in used.items()}
    copies = {}
    for date in context:
        image = series.optical[date]
        pixels = look(image, middle)
        for name, other in known.items():
            if np.array_equal(pixels, other) and _same_pixels(image, used[name], windows, look):
                copies[date] = Unusable(
                    f"its pixels are those of {name}, which the scene uses already",
                    "deliver each image once, under its own date",
                )
    return series.without(copies)


def _same_pixels(
    one: SourceRaster,
    other: SourceRaster,
    windows: Iterable[Window],
    look: Callable[[SourceRaster, Window], np.ndarray],
) -> bool:
    """Whether two images are the same everywhere, and show something."""
    seen = False
    for window in windows:
        first, second = look(one, window), look(other, window)
        if not np.array_equal(first, second):
            return False
        seen |= bool(first.any())
    return seen


# --- radar ----------------------------------------------------------------------------------


def settle_radar(
    series: SourceSeries, target: str, context: list[str]
) -> tuple[SourceSeries, list[str]]:
    """Choose the radar dates of a scene; a pass that shows nothing of the place makes way."""
    while True:
        chosen = choose_radar(list(series.radar), target, context)
        useless = {date: why for date in chosen if (why := _useless(series, date))}
        if not useless:
            return series, chosen
        series = series.without_radar(useless)


def _useless(series: SourceSeries, date: str) -> Unusable | None:
    """Return why a radar image cannot be used; None when it can."""
    try:
        if shows_something(series, date):
            return None
    except InputError as error:
        return Unusable.of(error)
    return Unusable("shows no pixel of the place", "nothing; the next pass is used")


def shows_something(series: SourceSeries, date: str) -> bool:
    """Whether a radar image has any pixel with data in both polarisations."""
    image = series.radar[date]
    return any(np.isfinite(image.read(w)).all(axis=0).any() for w in series.grid.windows())


# --- saying it ------------------------------------------------------------------------------


def require_date(row: SceneRow, series: SourceSeries, date: str, column: str) -> None:
    """Refuse a date that a row names and the series does not have.

    Raises:
        InputError: with the reason why it was left out, if it is there at all.
    """
    if date in series.optical:
        return
    field = f"scene {row.scene}: {column}"
    gone = series.left_out.get(date)
    if gone:
        raise InputError(
            f"{date} cannot be used: {gone.reason}", file=row.path, field=field, remedy=gone.remedy
        )
    raise InputError(
        f"no frame of {date}; there are {listed(series.optical)}",
        file=row.path,
        field=field,
        remedy="use one of these dates",
    )


def report_left_out(scene: str, series: SourceSeries) -> dict[str, dict[str, str]]:
    """Log what was left out, a line per reason, and return it as a fact of the scene."""
    reasons: dict[str, list[str]] = {}
    for date, gone in sorted(series.left_out.items()):
        reasons.setdefault(gone.reason, []).append(date)
    for reason, dates in reasons.items():
        LOG.warning("%s: left out %s: %s", scene, listed(dates), reason)
    found = {date: gone.reason for date, gone in sorted(series.left_out.items())}
    return {"left_out": found} if found else {}


def listed(dates: Iterable[str]) -> str:
    """Return dates as a message names them."""
    names = sorted(dates)
    return ", ".join(names) if len(names) <= 8 else f"{names[0]} ... {names[-1]} ({len(names)})"
