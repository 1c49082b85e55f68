"""Dates that somebody looked at and found clear: ``clear`` in ``scene.yaml``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from unveil.bands import CLEAR
from unveil.config import check, read_yaml
from unveil.errors import InputError
from unveil.scene import DECLARED_CLEAR
from unveil.sources.base import SourceRaster


def declared_mask(said_by: str) -> SourceRaster:
    """Return the mask of an image that somebody declares clear all over, band ``CLASS``."""

    def read(window: Window) -> np.ndarray:
        return np.full((1, int(window.height), int(window.width)), CLEAR, np.uint8)

    return SourceRaster(("CLASS",), read, {DECLARED_CLEAR: said_by})


def declared_dates(value: Any, dates: Iterable[str], *, file: Path) -> frozenset[str]:
    """Return the dates that ``clear`` of a ``scene.yaml`` names: all, none, or some.

    Raises:
        InputError: for a date that is not there.
    """
    known = frozenset(dates)
    if isinstance(value, bool):
        return known if value else frozenset()
    named = frozenset(value)
    if named - known:
        raise InputError(
            f"there is no frame of {', '.join(sorted(named - known))}",
            file=file,
            field="clear",
            remedy=f"name dates that are there: {', '.join(sorted(known))}",
        )
    return named


def dates_as_text(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with ``clear`` as text; YAML makes dates of what looks like one."""
    clear = facts.get("clear")
    if not isinstance(clear, list):
        return dict(facts)
    texts = [day.isoformat() if isinstance(day, dt.date) else day for day in clear]
    return {**facts, "clear": texts}


def read_declared(folder: Path, dates: Iterable[str]) -> frozenset[str]:
    """Return the dates that ``scene.yaml`` of a folder of products declares clear.

    Raises:
        InputError: if the file says anything else, or names a date that is not there.
    """
    path = folder / "scene.yaml"
    if not path.is_file():
        return frozenset()
    facts = dates_as_text(read_yaml(path))
    for name in facts:
        if name != "clear":
            raise InputError(
                "only clear can be said of products; they tell the rest themselves",
                file=path,
                field=name,
                remedy="take it out",
            )
    check(facts, "local", file=path)
    return declared_dates(facts.get("clear", False), dates, file=path)
