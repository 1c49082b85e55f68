"""Settling the dates of a row once its source is open: target, truth, and why.

For the protocols of real clouds, target and truth are chosen here and not when the scene table is
read: the scene's id does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unveil.config import SceneRow
from unveil.errors import InputError, SceneSkipped
from unveil.protocols import PROTOCOLS
from unveil.sources import selection
from unveil.sources.base import SourceSeries
from unveil.sources.pairs import asks_for_pairs, choose_pairs, too_few, wish_of
from unveil.sources.registry import source_of
from unveil.sources.selection import Limits, Look

MOST_NAMED = 3
"""Dates that a message explains."""


def is_settled(row: SceneRow, series: SourceSeries, limits: Limits) -> bool:
    """Whether the dates of a row are known without looking at the clouds of each.

    They are where the source names them, or where the row does and asks for no truth; protocols
    that make their own clouds take the date they are given.
    """
    chosen = row.target_date == "auto" or may_move(row, series, limits)
    return bool(series.target_date) or not (chosen or row.reference_date == "auto")


def may_move(row: SceneRow, series: SourceSeries, limits: Limits) -> bool:
    """Whether the target may be another date than the wanted one; a planned one may not."""
    if row.pair or row.product:
        return False
    choice = PROTOCOLS[row.protocol].clouds == "real" and len(series.optical) > 1
    return choice and limits.window_days > 0


def name_dates(row: SceneRow, series: SourceSeries) -> SceneRow:
    """Return a row with the dates that the source names, if it names any."""
    if not series.target_date:
        return row
    return replace(
        row,
        target_date=series.target_date,
        reference_date=series.reference_date,
        cloud_date=series.cloud_date or row.cloud_date,
    )


def sample_dates(
    row: SceneRow, series: SourceSeries, looks: Sequence[Look], cloud: tuple[float, float]
) -> tuple[SceneRow, SourceSeries]:
    """Return a row with the dates of its official sample, and the series cut down to these.

    Inputs are ``n_context + 1``; the one nearest to the truth in time is the target, of two as
    near the earlier. The others are all the context there is.

    Args:
        row: row of the scene table.
        series: all dates of the patch.
        looks: its dates, measured.
        cloud: least and most occluded fraction of an input.

    Raises:
        InputError: if there is one date only.
    """
    # Nothing is seen on a blank image: it counts as cloudy all over.
    covers = [1.0 if look.occluded is None else look.occluded for look in looks]
    dates = [look.date for look in looks]
    if len(dates) < 2:
        raise InputError(
            f"{len(dates)} date of patch {row.name or row.scene}",
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="download all dates of the place",
        )
    inputs, truth, fits = selection.sample_official(covers, row.n_context + 1, cloud)
    reference = dates[truth]
    target = min(inputs, key=lambda k: (selection.days_between(dates[k], reference), k))
    kept = {reference, *(dates[k] for k in inputs)}
    facts = {
        "cover_of_dates": {d: round(c, 4) for d, c in zip(dates, covers, strict=True)},
        "sampler": f"official, inputs of {cloud[0]:.0%} to {cloud[1]:.0%} cloud",
        "sampler_fits": fits,
    }
    return replace(row, target_date=dates[target], reference_date=reference), replace(
        series,
        optical={date: frame for date, frame in series.optical.items() if date in kept},
        masks={date: mask for date, mask in series.masks.items() if date in kept},
        facts=series.facts | facts,
    )


def choose_dates(
    row: SceneRow, series: SourceSeries, looks: Sequence[Look], limits: Limits
) -> tuple[SceneRow, SourceSeries]:
    """Return a row with the dates chosen by the clouds over the place, and the series.

    ``target_date`` is the wanted date, or ``auto`` for a real pair (:mod:`unveil.sources.pairs`)
    or, without a truth, the first date that is cloudy enough and could have one;
    ``reference_date: auto`` asks for the nearest really clear date. Why a date
    was chosen, or why there is no truth, goes to the facts of the series.

    Args:
        row: row of the scene table.
        series: the opened source.
        looks: its dates, measured.
        limits: section ``sources.selection`` of the config.

    Raises:
        InputError: if no date can be the target.
    """
    facts: dict[str, Any] = {
        "cover_of_dates": {k.date: round(k.occluded, 4) for k in looks if k.occluded is not None}
    }
    if asks_for_pairs(row) and source_of(row).pair_days:
        row = _choose_pair(row, looks, limits)
    elif row.target_date == "auto" or may_move(row, series, limits):
        row = replace(row, target_date=_choose_target(row, series, looks, limits).date)
    if row.reference_date == "auto":
        try:
            limits = replace(limits, truth_days=row.truth_days or limits.truth_days)
            truth = selection.truth_within(looks, row.target_date, limits).date
        except SceneSkipped as reason:
            truth, facts["no_reference"] = "", str(reason)
        row = replace(row, reference_date=truth)
    return row, replace(series, facts=series.facts | facts)


def _choose_pair(row: SceneRow, looks: Sequence[Look], limits: Limits) -> SceneRow:
    wish, number = wish_of(row, source_of(row).pair_days), max(row.pair, 1)
    pairs = choose_pairs(looks, wish, limits)
    if number > len(pairs):
        raise too_few(len(pairs), wish, limits, file=row.path, scene=row.scene)
    target, truth = pairs[number - 1]
    return replace(row, target_date=target.date, reference_date=truth.date)


def _choose_target(
    row: SceneRow, series: SourceSeries, looks: Sequence[Look], limits: Limits
) -> Look:
    try:
        if row.target_date == "auto":
            return selection.first_target(looks, limits)
        return selection.choose_target(
            looks,
            row.target_date,
            window_days=limits.window_days,
            cloud=limits.target_cloud,
            min_valid=limits.place_share,
        )
    except SceneSkipped as reason:
        gone = [f"{date} is left out: {why.reason}" for date, why in series.left_out.items()]
        raise InputError(
            "; ".join([str(reason), *gone[:MOST_NAMED]]),
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="widen sources.selection (window_days, target_cloud, place_share), or name "
            "another date",
        ) from reason
