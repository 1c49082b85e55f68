"""Source ``stac`` as the workflow asks for it: a request, the lock that answers it, its size.

What reads pixels is loaded in the job alone; its libraries take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unveil import raster
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources.base import Size, Source, SourceSeries
from unveil.sources.pairs import PAIR_DAYS
from unveil.sources.stac.lock import (
    lock_of,
    locked_dates,
    make_request,
    request_bytes,
    request_pixels,
)


class Stac(Source):
    """Any STAC API, by preset; column ``path`` names it."""

    kind = "stac"
    required = {
        "area": "write west,south,east,north in degrees, a GeoJSON file, or a tile like 33TWL",
    }
    searched = True
    pair_days = PAIR_DAYS
    target_auto = ("paired",)

    def files(self, row: SceneRow) -> tuple[str, ...]:
        """List nothing: the workflow watches the lock, which a rule writes."""
        return ()

    def require_input(self, row: SceneRow) -> None:
        """Refuse nothing: what is there, the search finds out."""

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return the size of the grid that is asked for."""
        request = make_request(row, settings["stac"])
        return Size(request_pixels(request), row.n_context + 1)

    def product_dates(self, row: SceneRow, settings: Mapping[str, Any]) -> tuple[str, ...] | None:
        """List the dates of the lock; None before there is one.

        Raises:
            InputError: without a start and an end, or if the lock does not fit.
        """
        if not (row.start and row.end):
            raise InputError(
                f"target_date {row.target_date!r} without start and end",
                field=f"scene {row.scene}: start",
                remedy="write the first and the last date in columns start and end, YYYY-MM-DD",
            )
        return locked_dates(row, settings["stac"])

    def input_bytes(self, row: SceneRow, settings: Mapping[str, Any]) -> int:
        """Return about how many bytes of pixels are asked for."""
        return request_bytes(make_request(row, settings["stac"]))

    def made_from(self, row: SceneRow, settings: Mapping[str, Any]) -> str:
        """Return the checksum of the lock."""
        return raster.sha256(lock_of(row, settings["stac"]))

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Fetch the scene of a lock and bring it onto one grid.

        Raises:
            InputError: if the lock does not fit, or a file cannot be had or read.
        """
        from unveil.sources.stac.read import open_stac

        return open_stac(row, settings["stac"])
