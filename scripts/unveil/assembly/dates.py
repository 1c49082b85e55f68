"""Settling the dates of a row once its source is open: target, truth, and why.

For the protocols of real clouds, target and truth are chosen here and not when the scene table is
read: the scene's id does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unveil.assembly.measure import Detect, measure_looks
from unveil.config import SceneRow
from unveil.errors import InputError, SceneSkipped
from unveil.protocols import PROTOCOLS
from unveil.sources import selection
from unveil.sources.base import SourceSeries
from unveil.sources.selection import Limits, Look


def sample_series(
    row: SceneRow,
    series: SourceSeries,
    cloud: tuple[float, float],
    *,
    dilate_px: int,
    detect: Detect,
) -> SourceSeries:
    """Cut a series down to truth and inputs of its official sample, and name its dates.

    Inputs are ``n_context + 1``; the one nearest to the truth in time is the target, of two as
    near the earlier. The others are all the context there is.

    Args:
        row: row of the scene table.
        series: all dates of the patch.
        cloud: least and most occluded fraction of an input.
        dilate_px: growth of cloud and shadow.
        detect: cloud detector for frames without a mask.

    Raises:
        InputError: if there is one date only.
    """
    looks = measure_looks(series, dilate_px=dilate_px, detect=detect)
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
    return replace(
        series,
        optical={date: frame for date, frame in series.optical.items() if date in kept},
        masks={date: mask for date, mask in series.masks.items() if date in kept},
        target_date=dates[target],
        reference_date=reference,
        facts=series.facts
        | {
            "cover_of_dates": {d: round(c, 4) for d, c in zip(dates, covers, strict=True)},
            "sampler": f"official, inputs of {cloud[0]:.0%} to {cloud[1]:.0%} cloud",
            "sampler_fits": fits,
        },
    )


# --- choosing target and truth of a series ------------------------------------------------


def choose_dates(
    row: SceneRow,
    series: SourceSeries,
    limits: Limits,
    *,
    dilate_px: int,
    detect: Detect,
) -> tuple[SceneRow, dict[str, Any]]:
    """Settle the dates of a row: what the source names, what the row names, what is chosen.

    ``target_date`` is the wanted date, or ``auto`` for the first date that is cloudy enough
    and has a truth; ``reference_date: auto`` asks for the nearest really clear date. The
    cover of every date is measured over the place, on masks that the source delivers or, for
    L1C, on those of ``detect``. Protocols that make their own clouds take the date they are
    given.

    Args:
        row: row of the scene table.
        series: the opened source.
        limits: section ``sources.selection`` of the config.
        dilate_px: growth of cloud and shadow.
        detect: cloud detector for L1C frames without a mask.

    Returns:
        The row with its dates, and facts for the scene: why a date was chosen, or why there
        is no truth.

    Raises:
        InputError: if no date can be the target.
    """
    if series.target_date:
        return replace(
            row,
            target_date=series.target_date,
            reference_date=series.reference_date,
            cloud_date=series.cloud_date or row.cloud_date,
        ), {}
    wanted = row.target_date
    choice = PROTOCOLS[row.protocol].clouds == "real" and len(series.optical) > 1
    exact = wanted != "auto" and not (choice and limits.window_days)
    if exact and row.reference_date != "auto":
        return row, {}
    looks = measure_looks(series, dilate_px=dilate_px, detect=detect)
    covers = {k.date: round(k.occluded, 4) for k in looks if k.occluded is not None}
    facts: dict[str, Any] = {"cover_of_dates": covers}
    target = wanted if exact else _choose_target(row, looks, limits)
    row = replace(row, target_date=target)
    if row.reference_date != "auto":
        return row, facts
    try:
        truth = _choose_truth(looks, target, limits)
    except SceneSkipped as reason:
        return replace(row, reference_date=""), facts | {"no_reference": str(reason)}
    return replace(row, reference_date=truth.date), facts


def _choose_target(row: SceneRow, looks: Sequence[Look], limits: Limits) -> str:
    low, high = limits.target_cloud
    try:
        if row.target_date != "auto":
            return selection.choose_target(
                looks,
                row.target_date,
                window_days=limits.window_days,
                cloud=(low, high),
                min_valid=limits.place_share,
            ).date
        for look in looks:
            cloudy = look.occluded is not None and low <= look.occluded <= high
            if cloudy and look.valid >= limits.place_share:
                try:
                    _choose_truth(looks, look.date, limits)
                except SceneSkipped:
                    continue
                return look.date
        raise SceneSkipped(
            f"no date has {low:.0%} to {high:.0%} cloud over the place and a really clear date "
            f"within {limits.truth_days} days"
        )
    except SceneSkipped as reason:
        raise InputError(
            str(reason),
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="widen sources.selection (window_days, target_cloud, place_share), or name "
            "another date",
        ) from reason


def _choose_truth(looks: Sequence[Look], target: str, limits: Limits) -> Look:
    return selection.choose_truth(
        looks,
        target,
        max_days=limits.truth_days,
        max_occluded=limits.truth_cloud,
        min_valid=limits.place_share,
    )
