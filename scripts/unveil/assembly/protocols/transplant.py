"""Protocol ``transplant``: the sky of one date on the clear image of another.

Cloud and shadow come as they are; where the donor's mask calls it clear, its veil is put on the
truth. The withheld image is the exact truth. Where it is itself cloudy, nothing is known and
nothing is judged.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.windows import Window

from unveil import classes as classmap
from unveil.assembly.protocols.base import (
    BadCell,
    MadeTarget,
    Maker,
    ProtocolSettings,
    classes_of,
    cover_of,
    has_data,
    mask_of,
    scene_seed,
)
from unveil.assembly.usable import listed, require_date
from unveil.assembly.veil import OFF, no_veil, veil_of_donor
from unveil.bands import CLEAR
from unveil.classes import HIDDEN_GROWTH_PX
from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.protocols import PROTOCOLS
from unveil.scene import cloud_cover, is_clear, is_occluded
from unveil.sources.base import SourceRaster, SourceSeries
from unveil.sources.selection import choose_donor


class Transplant(Maker):
    """A clear date with cloud, shadow and veil of another date of the same place."""

    protocol = PROTOCOLS["transplant"]

    def complaint(self, row: SceneRow) -> BadCell | None:
        """Ask for a donor or a cloud level; places that are planned get theirs then."""
        if row.target_date == "auto" or row.cloud_date or row.cloud_level is not None:
            return None
        return BadCell(
            "cloud_date",
            "protocol transplant without cloud_date or cloud_level",
            "name the date that lends its clouds, or a cloud level",
        )

    def make(self, row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> MadeTarget:
        """Put the hidden pixels of the donor on the withheld image, and its veil on the others.

        Raises:
            InputError: if a mask is missing, or the donor cannot lend its clouds.
        """
        _require_mask(row, series, row.target_date)
        donor = row.cloud_date or _find_donor(row, series, settings)
        truth, clouds = series.optical[row.target_date], _lender(row, series, donor)
        _require_mask(row, series, donor)
        own, lent = (classes_of(series.masks[d], series.grid) for d in (row.target_date, donor))
        grown = classmap.dilate(lent, HIDDEN_GROWTH_PX)
        hidden = is_occluded(grown) & has_data(clouds, series.grid)
        occlusion = np.where(hidden, grown, CLEAR).astype(np.uint8)
        veil = no_veil(OFF)
        if row.veil:
            clear = is_clear(grown) & has_data(clouds, series.grid)
            veil = veil_of_donor(series, donor, withheld=row.target_date, clear=clear)
        mask = np.where(hidden, np.where(is_occluded(lent), lent, CLEAR), own).astype(np.uint8)

        def read(window: Window) -> np.ndarray:
            rows, cols = window.toslices()
            shown = veil.over(truth.read(window), window)
            return np.where(hidden[rows, cols], clouds.read(window), shown)

        return MadeTarget(
            raster=SourceRaster(truth.bands, read, truth.facts),
            mask=mask_of(mask),
            reference=truth,
            reference_date=row.target_date,
            reference_mask=series.masks[row.target_date],
            occlusion=mask_of(occlusion),
            facts={"cloud_date": donor, **veil.facts},
            donor_date=donor,
        )


def _find_donor(row: SceneRow, series: SourceSeries, settings: ProtocolSettings) -> str:
    covers = {
        date: cloud_cover(classmap.dilate(classes_of(mask, series.grid), HIDDEN_GROWTH_PX))
        for date, mask in series.masks.items()
        if date in series.optical and date != row.target_date
    }
    return choose_donor(covers, cover_of(row), scene_seed(settings.seed, row.scene))


def _lender(row: SceneRow, series: SourceSeries, donor: str) -> SourceRaster:
    require_date(row, series, donor, "cloud_date")
    if donor == row.target_date:
        raise InputError(
            f"{donor} cannot lend its clouds to {row.target_date}",
            file=row.path,
            field=f"scene {row.scene}: cloud_date",
            remedy=f"use another date of {listed(series.optical)}",
        )
    return series.optical[donor]


def _require_mask(row: SceneRow, series: SourceSeries, date: str) -> None:
    if date not in series.masks:
        raise InputError(
            f"transplant needs a mask of {date}, there is none",
            file=Path(row.path) / "masks",
            field=f"scene {row.scene}",
            remedy=f"add masks/{date}.tif (SCL or CLASS), or use protocol simulate",
        )
