"""Dates that a row names, held against those that there are, before the first job."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from unveil.assembly.usable import listed
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.sources.registry import source_of


def require_dates(rows: Iterable[SceneRow], *, window_days: int) -> None:
    """Refuse rows that name a date without a frame, or one date for two purposes.

    Whether there is a frame is known where the names of the files tell.

    Args:
        rows: planned rows of the scene table.
        window_days: how far a target with real clouds may lie from the date that is named.

    Raises:
        InputError: naming the scene, the column, the date, and the dates that there are.
    """
    for row in rows:
        named = _named(row, window_days)
        known = source_of(row).known_dates(row) if named else None
        for column, date in named.items():
            if known is not None and date not in known:
                raise _absent(row, column, date, known)
            if column != "target_date" and date == named.get("target_date"):
                raise InputError(
                    f"{date} is the date of the target",
                    field=f"scene {row.scene}: {column}",
                    remedy="name another date of the place",
                )


def _named(row: SceneRow, window_days: int) -> dict[str, str]:
    """Return the dates that a row's protocol will look for, by column."""
    protocol = PROTOCOLS[row.protocol]
    # The ground of any day may be asked for, but not of a patch, whose dates are all there are.
    any_day = protocol.truth == "none" and not source_of(row).splits
    asked = {
        "target_date": not any_day and (protocol.clouds != "real" or not window_days),
        "reference_date": protocol.truth == "another date",
        "cloud_date": protocol.clouds == "lent",
    }
    dates = {column: getattr(row, column) for column, wanted in asked.items() if wanted}
    return {column: date for column, date in dates.items() if date not in ("", "auto")}


def _absent(row: SceneRow, column: str, date: str, known: tuple[str, ...]) -> InputError:
    day = dt.date.fromisoformat(date)
    nearest = min(known, key=lambda d: abs(dt.date.fromisoformat(d) - day), default=None)
    return InputError(
        f"no frame of {date}; there are {listed(known) or 'none'}",
        file=row.path,
        field=f"scene {row.scene}: {column}",
        remedy=f"use a date that is there, the nearest is {nearest}"
        if nearest
        else "put the frames there",
    )
