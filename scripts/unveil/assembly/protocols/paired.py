"""Protocols of real clouds: a cloudy image, and another date's clear one or no truth at all."""

from __future__ import annotations

from dataclasses import replace

from unveil.assembly.protocols.base import MadeTarget, Maker, ProtocolSettings
from unveil.assembly.usable import listed, require_date
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.sources.base import SourceSeries


class NoTruth(Maker):
    """``none``: the image of a date as it is; only the prediction is wanted."""

    protocol = PROTOCOLS["none"]

    def make(self, row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> MadeTarget:
        """Take the image of the date."""
        return MadeTarget(series.optical[row.target_date], series.masks.get(row.target_date))


class Paired(NoTruth):
    """``paired``: the same, with the clear image of another date as truth (as in SEN12MS-CR)."""

    protocol = PROTOCOLS["paired"]

    def make(self, row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> MadeTarget:
        """Take the image of the date, and the truth that row or source name.

        A source without a truth is a fact about the scene.

        Raises:
            InputError: if the named truth is not another date of the series.
        """
        plain = super().make(row, series, settings)
        if not row.reference_date:
            if series.reference is not None:
                return replace(
                    plain, reference=series.reference, reference_mask=series.reference_mask
                )
            known = series.facts.get("no_reference", "the source has no cloud-free image")
            return replace(plain, facts={"no_reference": known})
        require_date(row, series, row.reference_date, "reference_date")
        if row.reference_date == row.target_date:
            raise InputError(
                f"{row.reference_date} is not another date of {listed(series.optical)}",
                file=row.path,
                field=f"scene {row.scene}: reference_date",
                remedy="use one of these dates",
            )
        return replace(
            plain,
            reference=series.optical[row.reference_date],
            reference_date=row.reference_date,
            reference_mask=series.masks.get(row.reference_date),
        )
