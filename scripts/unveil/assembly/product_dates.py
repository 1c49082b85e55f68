"""The dates of a product: a row without a truth that wants cloud-free images of many days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources.registry import source_of

EVERY, MONTHLY, MIDDLE = "every", "monthly", 15
ONE_DAY = dt.timedelta(days=1)


def is_series(row: SceneRow) -> bool:
    """Whether a row of the scene table asks for the images of many dates."""
    return row.target_date in (EVERY, MONTHLY) or row.target_date.endswith("D")


def as_product(row: SceneRow) -> SceneRow:
    """Return a row of many dates as each of these names it."""
    return replace(row, product=row.scene)


def plan_dates(row: SceneRow, settings: Mapping[str, Any]) -> list[SceneRow]:
    """Return one row per date of a product; none where its catalogue was not searched yet.

    A row of one date stays as it is.

    Args:
        row: row of the scene table.
        settings: section ``sources`` of the config, with all that a search needs in ``stac``.

    Raises:
        InputError: if nothing tells the dates, or there is none from ``start`` to ``end``.
    """
    if not is_series(row):
        return [row]
    source_of(row).require_input(row)
    row = as_product(row)
    known = source_of(row).product_dates(row, settings)
    if known is None and row.target_date == EVERY:
        return []
    known = known or ()
    if not known and not (row.start and row.end):
        raise InputError(
            "nothing tells the first and the last date",
            file=row.path,
            field=f"scene {row.scene}: start",
            remedy="write start and end, YYYY-MM-DD",
        )
    first, last = row.start or min(known), row.end or max(known)
    days = wanted_days(row.target_date, known, first=first, last=last)
    if not days:
        raise InputError(
            f"no date of target_date {row.target_date!r} from {first} to {last}",
            file=row.path,
            field=f"scene {row.scene}: start",
            remedy="choose another start or end, or monthly or 10D, which need no acquisition",
        )
    return [replace(row, scene=f"{row.scene}-{d.replace('-', '')}", target_date=d) for d in days]


def wanted_days(wish: str, known: Iterable[str], *, first: str, last: str) -> list[str]:
    """Return the dates of a wish from the first to the last day, ``YYYY-MM-DD``.

    Args:
        wish: ``every`` known date, ``monthly`` on the 15th, or every so many days from the first
            on, such as ``10D``.
        known: dates with an acquisition.
        first: first day.
        last: last day, included.
    """
    if wish == EVERY:
        return [date for date in sorted(known) if first <= date <= last]
    start = dt.date.fromisoformat(first)
    days = [start + n * ONE_DAY for n in range((dt.date.fromisoformat(last) - start).days + 1)]
    if wish == MONTHLY:
        return [day.isoformat() for day in days if day.day == MIDDLE]
    return [day.isoformat() for day in days[:: int(wish.removesuffix("D"))]]
