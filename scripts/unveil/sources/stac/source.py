"""Source ``stac`` as the workflow asks for it: a request, the lock that answers it, its size.

What reads pixels is loaded in the job alone; its libraries take seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unveil import raster
from unveil.config import SceneRow
from unveil.sources.base import Size, Source, SourceSeries
from unveil.sources.pairs import PAIR_DAYS
from unveil.sources.stac.lock import lock_path, make_request, request_bytes, request_pixels


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

    def input_bytes(self, row: SceneRow, settings: Mapping[str, Any]) -> int:
        """Return about how many bytes of pixels are asked for."""
        return request_bytes(make_request(row, settings["stac"]))

    def made_from(self, row: SceneRow, settings: Mapping[str, Any]) -> str:
        """Return the checksum of the lock."""
        return raster.sha256(lock_path(row.scene, settings["stac"]))

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Fetch the scene of a lock and bring it onto one grid.

        Raises:
            InputError: if the lock does not fit, or a file cannot be had or read.
        """
        from unveil.sources.stac.read import open_stac

        return open_stac(row, settings["stac"])
