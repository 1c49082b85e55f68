"""Assembling a scene: open its source, settle its dates, make its target, write its rasters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unveil.assembly import usable
from unveil.assembly.dates import choose_dates, is_settled, may_move, name_dates, sample_dates
from unveil.assembly.floor import measure_floor
from unveil.assembly.measure import Detect, measure_looks
from unveil.assembly.no_acquisition import with_target
from unveil.assembly.protocols.base import MadeTarget, ProtocolSettings
from unveil.assembly.protocols.registry import maker_of
from unveil.assembly.scored import Judge, share_hidden
from unveil.assembly.veil import NO_GROUND, OFF
from unveil.assembly.write import discard, write_context, write_radar, write_target
from unveil.bands import sort_bands
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS, clean_variant
from unveil.raster import Grid
from unveil.scene import Frame, Scene
from unveil.sources.base import SourceSeries, Unusable
from unveil.sources.registry import source_of
from unveil.sources.selection import Limits, choose_context, usual_bands

LOG = logging.getLogger(__name__)


def assemble_row(
    row: SceneRow,
    sources: Mapping[str, Any],
    folder: Path,
    settings: ProtocolSettings,
    *,
    detect: Detect,
    refusal: usable.Refusal,
    judge: Judge,
) -> Scene:
    """Open the source of a row, settle its dates and write the scene.

    Args:
        row: row of the scene table.
        sources: section ``sources`` of the config.
        folder: the scene's folder.
        settings: the seed.
        detect: cloud detector for L1C frames without a mask, to choose dates by.
        refusal: tells which images nothing can judge for cloud.
        judge: finds the clouds of target and truth where no mask is delivered.

    Raises:
        InputError: whatever is wrong with the input, with its remedy.
    """
    source = source_of(row)
    series = usable.keep_judged(_open(row, sources), refusal)
    series = usable.keep_water(series)
    limits, sample = Limits(**sources["selection"]), source.official_cloud(sources)
    if row.product or not (limits.window_days or source.splits):
        series = with_target(row, series)
    if is_settled(row, series, limits):
        return assemble(name_dates(row, series), series, folder, settings, judge=judge)
    series = _of_one_set_of_bands(row, series, limits)
    series, looks = measure_looks(series, detect=detect)
    if sample and row.target_date == row.reference_date == "auto":
        row, series = sample_dates(row, series, looks, sample)
    else:
        row, series = choose_dates(row, series, looks, limits)
    return assemble(row, series, folder, settings, judge=judge)


@dataclass
class _Opened:
    """The source that the dates of a product share, opened once a process."""

    row: SceneRow | None = None
    series: SourceSeries | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


_SHARED = _Opened()


def _open(row: SceneRow, sources: Mapping[str, Any]) -> SourceSeries:
    """Open the source of a row; the next date of a product takes what the last one opened."""
    source = source_of(row)
    if not row.product or source.searched:
        return source.open(row, sources)
    product = replace(row, scene=row.product, target_date="")
    with _SHARED.lock:
        if _SHARED.series is None or _SHARED.row != product:
            _SHARED.row, _SHARED.series = product, source.open(product, sources)
        return _SHARED.series


def _of_one_set_of_bands(row: SceneRow, series: SourceSeries, limits: Limits) -> SourceSeries:
    """Settle the bands of a scene before its dates are measured."""
    if row.target_date == "auto" or may_move(row, series, limits):
        usual = usual_bands([frame.bands for frame in series.optical.values()])
        return usable.narrow(row, series, sort_bands(usual))
    usable.require_date(row, series, row.target_date, "target_date")
    return usable.narrow(row, series, usable.bands_of_target(row, series))


def assemble(
    row: SceneRow,
    series: SourceSeries,
    folder: Path,
    settings: ProtocolSettings,
    *,
    judge: Judge,
) -> Scene:
    """Write the rasters of a scene and return it.

    Args:
        row: row of the scene table, with a date.
        series: the opened source.
        folder: the scene's folder; ``frames``, ``sar``, ``truth`` and ``source_masks`` are
            written in it.
        settings: the seed.
        judge: finds the clouds of target and truth where no mask is delivered.

    Raises:
        InputError: when the row asks for what the source does not have.
    """
    if not usable.made_of_reference(row, series):
        usable.require_date(row, series, row.target_date, "target_date")
    series = usable.narrow(row, series, usable.bands_of_target(row, series))
    target = maker_of(row).make(row, series, settings)
    level = str(series.facts.get("level", ""))
    written = write_target(target, row.target_date, series.grid, folder, level=level, judge=judge)
    frames = list(written)
    series, context = _write_context(row, series, target, folder)
    dates = [frame.date for frame in context]
    LOG.info("%s: target %s, context %s", row.scene, row.target_date, ", ".join(dates) or "none")
    series, radar = _write_radar(row, series, dates, folder)
    frames += [*context, *radar]
    facts = {
        **series.facts,
        **target.facts,
        **_facts_of_truth(row, frames, series.grid),
        **usable.report_left_out(row.scene, series),
        **_report_passed_over(row),
        "source": row.source,
        "path": row.path,
    }
    clean = facts.get("veil") in (OFF, NO_GROUND)
    protocol = clean_variant(row.protocol) if clean else row.protocol
    return Scene(row.scene, protocol, series.place, series.grid, tuple(frames), facts)


def _report_passed_over(row: SceneRow) -> dict[str, str]:
    """Log which dates planning did not consider, and return it as a fact of the scene."""
    if not row.passed_over:
        return {}
    LOG.info("%s: passed over, %s", row.scene, row.passed_over)
    return {"passed_over": row.passed_over}


def _write_context(
    row: SceneRow, series: SourceSeries, target: MadeTarget, folder: Path
) -> tuple[SourceSeries, list[Frame]]:
    """Write the context; a date that must not be used makes way for the next.

    It must not where it cannot be read, or shows target, truth or donor again. The lender of the
    clouds stays out: models must not see them twice.
    """
    excluded = {row.target_date, target.reference_date, target.donor_date}
    used = {date: series.optical[date] for date in sorted(excluded & set(series.optical))}
    if target.reference and target.reference_date not in used:
        used["the truth"] = target.reference
    written: dict[str, Frame] = {}
    while True:
        context = choose_context(list(series.optical), row.target_date, row.n_context, excluded)
        try:
            for date in context:
                if date not in written:
                    written[date] = write_context(series, date, folder)
        except InputError as error:
            series = series.without({date: Unusable.of(error)})
            continue
        kept = series
        if target.reference is not None:
            kept = usable.without_copies(series, context, used, made_clouds=target.occlusion)
        if kept.optical.keys() == series.optical.keys():
            return series, [written[date] for date in context]
        for date in series.optical.keys() - kept.optical.keys():
            discard(written.pop(date))
        series = kept


def _write_radar(
    row: SceneRow, series: SourceSeries, context: list[str], folder: Path
) -> tuple[SourceSeries, list[Frame]]:
    """Write the radar; a pass that cannot be read, or shows nothing, makes way for the next."""
    written: dict[str, Frame] = {}
    while True:
        series, chosen = usable.settle_radar(series, row.target_date, context)
        try:
            for date in chosen:
                if date not in written:
                    written[date] = write_radar(series, date, folder)
        except InputError as error:
            series = series.without_radar({date: Unusable.of(error)})
        else:
            return series, [written[date] for date in chosen]


def _facts_of_truth(row: SceneRow, frames: Sequence[Frame], grid: Grid) -> dict[str, Any]:
    """Return the share that is hidden, and what the dates of a pair differ by anyway."""
    by_role = {frame.role: frame for frame in frames}
    scored = by_role.get("occlusion")
    if scored is None:
        return {}
    facts: dict[str, Any] = {"occluded": round(share_hidden(scored, grid), 4)}
    if not PROTOCOLS[row.protocol].exact:
        facts |= measure_floor(by_role["target"], by_role["reference"], scored, grid)
    return facts
