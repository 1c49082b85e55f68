"""Source ``sen12mscrts``: patches of SEN12MS-CR-TS in the dataset's own folders.

``PATH/ROIs1868/100/S2/0/s2_ROIs1868_100_ImgNo_0_2018-01-06_patch_12.tif`` and its siblings
below ``S1``: thirty dates of 2018 for each of 53 places, 13 L1C bands as uint16 DN x 10000, and
VV, VH sigma0 in dB (Ebel et al. 2022, IEEE TGRS 60, doi:10.1109/TGRS.2022.3146246). Radar has
dates of its own. A patch is named ``ROIs1868_100_p12``. Which dates of a patch are used is settled
when a scene is assembled (:func:`unveil.assembly.dates.sample_dates` for the official sample).
"""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unveil.config import SceneRow
from unveil.errors import InputError
from unveil.sources.base import (
    PATCH_PIXELS,
    Size,
    Source,
    SourceSeries,
    of_radar,
    open_dates,
    usual_grid,
)
from unveil.sources.sen12mscr import open_optical, open_radar
from unveil.sources.splits import match_patch, split_places, spread

LOG = logging.getLogger(__name__)

PATCH = re.compile(r"(?P<roi>ROIs\d+)_(?P<place>\d+)_p(?P<patch>\d+)$")
FILE = re.compile(
    r"s(?P<sensor>[12])_(?P<roi>ROIs\d+)_(?P<place>\d+)_ImgNo_(?P<number>\d+)"
    r"_(?P<date>\d{4}-\d{2}-\d{2})_patch_(?P<patch>\d+)\.tif$"
)


class Sen12MsCrTs(Source):
    """SEN12MS-CR-TS: thirty dates of every patch, optical and radar."""

    kind = "sen12mscrts"
    pair_days = 45  # dates of a patch lie about twelve days apart
    target_auto = ("paired", "none")
    splits = True

    def files(self, row: SceneRow) -> list[str]:
        """List the images of the patch."""
        self.require_input(row)
        return [str(path) for paths in patch_files(row).values() for path in paths]

    def known_dates(self, row: SceneRow) -> tuple[str, ...]:
        """List the optical dates of the patch, from the names of its files."""
        return tuple(_by_date(patch_files(row)["S2"]))

    def patches(self, row: SceneRow) -> list[tuple[str, str]]:
        """List the patches of a split that are there, as pairs of name and place.

        Raises:
            InputError: for an unknown split.
        """
        named = []
        for roi, places in split_places(self.kind, row.split, file=row.path).items():
            for place in places:
                folder = Path(row.path) / roi / str(place) / "S2"
                numbered = (path for path in folder.glob("[0-9]*"))
                first = min(numbered, key=lambda path: int(path.name), default=None)
                numbers = sorted(_numbers(first)) if first else []
                named += [(f"{roi}_{place}_p{n}", f"{roi}_{place}") for n in numbers]
        return spread(named, row.n_patches)

    def official_cloud(self, settings: Mapping[str, Any]) -> tuple[float, float] | None:
        """Return the range of ``sources.sen12mscrts.input_cloud`` if the sampler is official."""
        own = settings[self.kind]
        return tuple(own["input_cloud"]) if own["sampler"] == "official" else None

    def measure(self, row: SceneRow, settings: Mapping[str, Any]) -> Size:
        """Return the size of every patch, and the frames that are asked for."""
        return Size(PATCH_PIXELS, row.n_context + 1)

    def open(self, row: SceneRow, settings: Mapping[str, Any]) -> SourceSeries:
        """Open all dates of one patch.

        Raises:
            InputError: for a name of another form, or missing or damaged files.
        """
        files = patch_files(row)
        optical = _by_date(files["S2"])
        if not optical:
            raise InputError(
                f"no Sentinel-2 files of patch {row.name or row.scene}",
                file=row.path,
                field=f"scene {row.scene}: name",
                remedy="merge the downloaded archives into one folder, PATH/ROIs1868/100/S2/0/...",
            )
        grid = usual_grid(optical, row.target_date)
        frames, bad = open_dates(optical, lambda _, path: open_optical(path, grid))
        radar, deaf = open_dates(_by_date(files["S1"]), lambda _, path: open_radar(path, grid))
        match = match_patch(row, PATCH, like="ROIs1868_100_p12")
        return SourceSeries(
            grid=grid,
            place=row.place or f"{match['roi']}_{match['place']}",
            optical=frames,
            radar=radar,
            facts={
                "level": "L1C",
                "radar_calibration": "sigma0",
                "licence": "SEN12MS-CR-TS: CC BY 4.0",
                "attribution": "Ebel et al. 2022, modified Copernicus Sentinel data",
            },
            left_out=bad | {of_radar(date): why for date, why in deaf.items()},
        )


def patch_files(row: SceneRow) -> dict[str, list[Path]]:
    """List the files of a patch by sensor (``S1``, ``S2``), in order of their image number.

    Raises:
        InputError: if the name is not of the dataset's form.
    """
    match = match_patch(row, PATCH, like="ROIs1868_100_p12")
    folder = Path(row.path) / match["roi"] / match["place"]
    found: dict[str, list[Path]] = {}
    for sensor in ("S1", "S2"):
        paths = folder.glob(f"{sensor}/*/{sensor.lower()}_*_patch_{match['patch']}.tif")
        numbered = [(int(m["number"]), p) for p in paths if (m := FILE.search(p.name))]
        found[sensor] = [path for _, path in sorted(numbered)]
    return found


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        match = FILE.fullmatch(path.name)
        if match:
            yield int(match["patch"])


def _by_date(paths: list[Path]) -> dict[str, Path]:
    """Key files by date; of two on one date the first image number is used."""
    found: dict[str, Path] = {}
    for path in paths:
        named = FILE.search(path.name)
        if named is None:
            continue
        date = named["date"]
        try:
            dt.date.fromisoformat(date)
        except ValueError as error:
            raise InputError(
                f"{date} is no date", file=path, field="date", remedy="keep the dataset's names"
            ) from error
        if date in found:
            LOG.info("%s: %s has the same date and is used", path.name, found[date].name)
        else:
            found[date] = path
    return dict(sorted(found.items()))
