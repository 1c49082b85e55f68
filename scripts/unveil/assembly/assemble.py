"""Assembling a scene: open its source, settle its dates, make its target, write its rasters."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unveil.assembly.dates import choose_dates, is_settled, name_dates, sample_dates
from unveil.assembly.measure import Detect, measure_looks
from unveil.assembly.protocols.base import ProtocolSettings, listed
from unveil.assembly.protocols.registry import maker_of
from unveil.assembly.write import write_scene
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.scene import Scene
from unveil.sources.base import SourceSeries
from unveil.sources.registry import source_of
from unveil.sources.selection import Limits, choose_context, choose_radar

LOG = logging.getLogger(__name__)


def assemble_row(
    row: SceneRow,
    sources: Mapping[str, Any],
    folder: Path,
    settings: ProtocolSettings,
    *,
    detect: Detect,
) -> Scene:
    """Open the source of a row, settle its dates and write the scene.

    Args:
        row: row of the scene table.
        sources: section ``sources`` of the config.
        folder: the scene's folder.
        settings: seed and dilation.
        detect: cloud detector for L1C frames without a mask.

    Raises:
        InputError: whatever is wrong with the input, with its remedy.
    """
    source = source_of(row)
    series = source.open(row, sources)
    limits, sample = Limits(**sources["selection"]), source.official_cloud(sources)
    if is_settled(row, series, limits):
        return assemble(name_dates(row, series), series, folder, settings)
    looks = measure_looks(series, dilate_px=settings.dilate_px, detect=detect)
    if sample and row.target_date == row.reference_date == "auto":
        row, series = sample_dates(row, series, looks, sample)
    else:
        row, series = choose_dates(row, series, looks, limits)
    return assemble(row, series, folder, settings)


def assemble(
    row: SceneRow, series: SourceSeries, folder: Path, settings: ProtocolSettings
) -> Scene:
    """Write the rasters of a scene and return it.

    Args:
        row: row of the scene table, with a date.
        series: the opened source.
        folder: the scene's folder; ``frames``, ``sar``, ``truth`` and ``source_masks`` are
            written in it.
        settings: seed and dilation.

    Raises:
        InputError: when the row asks for what the source does not have.
    """
    if row.target_date not in series.optical:
        raise InputError(
            f"no frame of {row.target_date}; there are {listed(series.optical)}",
            file=row.path,
            field=f"scene {row.scene}: target_date",
            remedy="use one of these dates",
        )
    target = maker_of(row).make(row, series, settings)
    # The lender of the clouds stays out of the context: models must not see them twice.
    excluded = {row.target_date, target.reference_date, target.donor_date}
    context = choose_context(list(series.optical), row.target_date, row.n_context, excluded)
    radar = choose_radar(list(series.radar), row.target_date, context)
    LOG.info("%s: target %s, context %s", row.scene, row.target_date, ", ".join(context) or "none")
    frames = tuple(write_scene(row, series, target, context=context, radar=radar, folder=folder))
    facts = {**series.facts, **target.facts, "source": row.source, "path": row.path}
    return Scene(row.scene, row.protocol, series.place, series.grid, frames, facts)
