"""The registry: every source that column ``source`` of the scene table may name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unveil.config import SceneRow
from unveil.sources.allclear import AllClear
from unveil.sources.base import Source, SourceSeries
from unveil.sources.local import Local
from unveil.sources.npz import Npz
from unveil.sources.place import PublicPlace
from unveil.sources.safe import Safe
from unveil.sources.sen12mscr import Sen12MsCr
from unveil.sources.sen12mscrts import Sen12MsCrTs
from unveil.sources.stac.source import Stac

SOURCES: dict[str, Source] = {
    source.kind: source
    for source in (
        Local(),
        PublicPlace(),
        Npz(),
        Safe(),
        Stac(),
        Sen12MsCr(),
        Sen12MsCrTs(),
        AllClear(),
    )
}


def source_of(row: SceneRow) -> Source:
    """Return the source of a row of the scene table, whose schema knows the names of all."""
    return SOURCES[row.source]


def open_source(row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
    """Open the input of one scene.

    Args:
        row: row of the scene table.
        settings: section ``sources`` of the config, with all that a search needs in ``stac``.

    Raises:
        InputError: whatever is wrong with the input, with its remedy.
    """
    return source_of(row).open(row, settings)
