"""Source ``place``: a public place, which the workflow fetches and lays out itself.

``path`` is its id in ``resources/places.yaml``. The rule ``make_place`` writes a folder below the
cache, which is then read as source ``local`` reads any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unveil.config import SceneRow
from unveil.places.table import RECORD, folder_of, place_of
from unveil.records import content_of, read_record
from unveil.sources.base import Size, Source, SourceSeries
from unveil.sources.local import Local


class PublicPlace(Source):
    """A place of the table of public places; its folder may not be there before the job."""

    kind = "place"
    made = True

    def files(self, row: SceneRow) -> tuple[str, ...]:
        """List nothing: the workflow watches the record, which a rule writes."""
        return ()

    def require_input(self, row: SceneRow) -> None:
        """Refuse a place that is not in the table, or has no target.

        Raises:
            InputError: naming those that there are.
        """
        place_of(row.path, field=f"scene {row.scene}: path")

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return the size that the table states."""
        place = place_of(row.path, field=f"scene {row.scene}: path")
        height, width = place.size
        return Size(height * width, min(place.dates, row.n_context + 1))

    def made_from(self, row: SceneRow, settings: Mapping[str, Any]) -> str:
        """Return the checksum of all files of the folder."""
        record = folder_of(row.path, settings["cache"]) / RECORD
        return content_of(read_record(record, kind="a public place", rule="make_place"))

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open the folder of the place.

        Raises:
            InputError: as source ``local`` does.
        """
        folder = folder_of(row.path, settings["cache"])
        return Local().open(replace(row, path=str(folder)), settings)
