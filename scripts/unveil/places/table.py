"""The table of public places: which there are, what each is for, and where its files are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from unveil.config import REPOSITORY, check, read_training
from unveil.errors import InputError, did_you_mean
from unveil.guarded import read_yaml

TABLE = REPOSITORY / "resources" / "places.yaml"
TRAINING = REPOSITORY / "config" / "training.yaml"
FOLDER = "places"
"""Below the cache: one folder a place, laid out as source ``local`` reads it."""
RECORD = "place.json"
"""In the folder of a place, written last: what it was made from."""
Role = Literal["trains", "validates", "develops", "judges"]


@dataclass(frozen=True)
class Place:
    """A public place with a series of real dates.

    Attributes:
        id: its key in the table.
        title: country, ground and position.
        role: what it is for; a place has one.
        level: processing level of its dates.
        bands: ESA names.
        dates: number of optical dates.
        radar_dates: number of radar dates.
        licence: of the series.
        pixel_m: edge of a pixel in metres; 0 where it takes no part in evidence.
        size: rows and columns; empty where it takes no part in evidence.
        pairs: number of real pairs that there are.
        notes: anything else a reader should know.
        why: why it takes no part in evidence.
        series: its id in config/training.yaml; empty where its files stand here.
        facts: ``layout``, ``files`` and ``dates`` as :func:`.fetch.fetch_series` wants them;
            without a layout where nothing reads them.
    """

    id: str
    title: str
    role: Role
    level: str
    bands: tuple[str, ...]
    dates: int
    radar_dates: int
    licence: str
    pixel_m: int = 0
    size: tuple[int, ...] = ()
    pairs: int = 0
    notes: str = ""
    why: str = ""
    series: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Where its first file comes from: repository of an address, or package and version."""
        first = self.facts["files"][0]
        if "package" in first:
            return f"{first['package']} {first['version']} (PyPI)"
        return "/".join(first["url"].split("/")[3:5])


@cache
def read_places() -> Mapping[str, Place]:
    """Return the places of :data:`TABLE` by id, in its order.

    Raises:
        InputError: if the table is not as its schema says.
    """
    table = read_yaml(TABLE)
    check(table, "places", file=TABLE)
    training = read_training(TRAINING)["series"]
    return {name: _place(name, row, training) for name, row in table.items()}


def _place(name: str, row: Mapping[str, Any], training: Mapping[str, Any]) -> Place:
    own = {key: row[key] for key in ("layout", "files") if key in row}
    plain: dict[str, Any] = {key: value for key, value in row.items() if key not in own}
    plain |= {key: tuple(row[key]) for key in ("bands", "size") if key in row}
    return Place(name, **plain, facts=training[row["series"]] if "series" in row else own)


def place_of(name: str, *, field: str) -> Place:
    """Return a place that takes part in evidence.

    Raises:
        InputError: if there is none of that name, or it has no dates that could.
    """
    places = read_places()
    if name not in places:
        raise InputError(
            f"{name!r} is no public place", field=field, remedy=did_you_mean(name, list(places))
        )
    if not places[name].size:
        raise InputError(
            f"{name} has no target: {places[name].why}",
            field=field,
            remedy=f"use one of {', '.join(p.id for p in places.values() if p.size)}",
        )
    return places[name]


def folder_of(name: str, cache: str | Path) -> Path:
    """Return the folder of a place below the cache."""
    return Path(cache) / FOLDER / name
