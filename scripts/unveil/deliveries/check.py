"""Does a delivery fit? Grid, bands, unit, nodata, dates, and whether it is a copy of the truth.

A delivery is what a model of kind ``external`` names. Every file is judged by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rasterio.windows import Window

from unveil import raster
from unveil.errors import InputError
from unveil.models.external import External
from unveil.scene import Frame, Scene, is_clear, is_occluded
from unveil.stored import Stored, is_fill, read_dn

FITS, DOUBTFUL, UNFIT, MISSING = "fits", "doubtful", "does not fit", "missing"
COPIED_SHARE, COPIED_PIXELS = 0.2, 100
"""Share of hidden pixels, and their number, that equal another image in all bands: nobody guesses
reflectance to its last digit."""
SAMPLED = 2_000
"""About the clear pixels of a window whose unit is looked at."""
UNIT_MARGIN = 1.6
"""Factor by which images of one day may differ in their medians."""
UNITS = {
    1e4: "holds reflectance x 10000 as floats, which are read as reflectance",
    1e2: "holds percent",
    1e-4: "holds reflectance as integers, or is scaled twice",
    1e-2: "is a hundred times too dark",
}
REMEDIES = {
    1e4: "write uint16, or divide by 10000",
    1e2: "divide by 100, or write reflectance x 10000 as uint16",
    1e-4: "write reflectance x 10000",
    1e-2: "write reflectance x 10000 as uint16",
}


@dataclass(frozen=True)
class Verdict:
    """What is found of the delivery of one scene.

    Attributes:
        scene: its id.
        file: the file delivered, or wanted.
        verdict: ``fits``, ``doubtful``, ``does not fit`` or ``missing``.
        bands: bands answered of those of the scene, as in ``4 of 6``.
        answered: share of the hidden pixels with an answer in every band delivered.
        findings: what is wrong, with what to do.
    """

    scene: str
    file: str
    verdict: str
    bands: str = ""
    answered: float = np.nan
    findings: str = ""


def check_delivery(model: External, scenes: Iterable[Scene]) -> pd.DataFrame:
    """Judge what was delivered for every scene; files that nobody asked for get a row each.

    Args:
        model: names the files.
        scenes: with their truth, which a delivery may have copied.

    Returns:
        One row per scene, with the fields of :class:`Verdict`.
    """
    scenes = list(scenes)
    verdicts = [judge(model, scene) for scene in scenes]
    asked = {str(model.path(scene)) for scene in scenes}
    folder = model.options.folder
    extra = [path for path in raster_names(folder) if str(path) not in asked]
    verdicts += [
        Verdict("", str(path), DOUBTFUL, findings="no scene or date of this run asks for it")
        for path in extra
    ]
    return pd.DataFrame([vars(verdict) for verdict in verdicts])


def raster_names(folder: str) -> list[Path]:
    """List the GeoTIFFs of a folder, hidden ones left out; none without a folder."""
    found = Path(folder).glob("*.tif") if folder else ()
    return sorted(path for path in found if path.name[0] != ".")


def judge(model: External, scene: Scene) -> Verdict:
    """Judge the delivery of one scene."""
    path = model.path(scene)
    if not path.exists():
        return Verdict(scene.id, str(path), MISSING, findings="deliver it")
    seen = scene.without_truth()
    if reason := model.skip(seen):
        return Verdict(scene.id, str(path), UNFIT, findings=reason)
    try:
        counts = _count(model, scene)
    except InputError as error:
        return Verdict(scene.id, str(path), UNFIT, findings=str(error))
    unit, copies = counts.unit_fault(), counts.copies()
    findings = [*unit, *copies]
    empty = counts.hidden > 0 and not counts.answered
    if empty:
        findings.append("answers no hidden pixel: 0 and NaN are no answer")
    verdict = UNFIT if unit or empty else DOUBTFUL if copies else FITS
    return Verdict(
        scene.id,
        str(path),
        verdict,
        f"{len(model.bands)} of {len(scene.bands)}",
        counts.answered / counts.hidden if counts.hidden else np.nan,
        "; ".join(findings),
    )


@dataclass
class _Counts:
    """What is counted over a scene.

    Attributes:
        hidden: pixels under cloud or shadow in the target.
        answered: of these, with a number in every band delivered.
        equal: of these, equal to an image in every band, by what the image is.
        ratios: delivered over observed reflectance at clear pixels.
        shifts: delivered minus observed reflectance there.
    """

    hidden: int
    answered: int
    equal: dict[str, int]
    ratios: list[np.ndarray]
    shifts: list[np.ndarray]

    def unit_fault(self) -> list[str]:
        """Say what the numbers are instead of reflectance, if they are something that is known."""
        ratios = np.concatenate(self.ratios)
        if len(ratios) < COPIED_PIXELS:
            return []
        ratio = float(np.median(ratios))
        for unit, what in UNITS.items():
            if unit / UNIT_MARGIN < ratio < unit * UNIT_MARGIN:
                return [f"{what}: at clear pixels it is {ratio:,.4g} times the target. "
                        f"Remedy: {REMEDIES[unit]}"]  # fmt: skip
        shift = float(np.median(np.concatenate(self.shifts)))
        if 0.07 < abs(shift) < 0.13:
            sign = "was not taken off" if shift > 0 else "was taken off twice"
            off = f"lies {shift:+.2f} reflectance off at clear pixels"
            return [f"{off}: the offset of 1000 DN {sign}"]
        return []

    def copies(self) -> list[str]:
        """Say which image hidden pixels are copied from."""
        most = max(COPIED_PIXELS, COPIED_SHARE * self.hidden)
        return [
            f"{count:,} of {self.hidden:,} hidden pixels equal {what} to the last digit"
            for what, count in self.equal.items()
            if count >= most
        ]


def _count(model: External, scene: Scene) -> _Counts:
    """Go over a scene window by window.

    Raises:
        InputError: if a file is damaged, or its numbers are none.
    """
    counts = _Counts(0, 0, {}, [], [])
    others = {"the cloudy target": scene.target}
    truths = scene.with_role("reference")
    if truths:
        others["the truth"] = truths[0]
    for window in scene.grid.windows():
        raw = model.raw(window)
        stored = model.stored
        fill = is_fill(raw, stored.nodata).any(axis=0)
        assert scene.target.mask is not None, "scenes are checked after the masks"
        classes = raster.read(scene.target.mask, window=window)[0]
        hidden = is_occluded(classes)
        answered = hidden & ~fill
        counts.hidden += int(hidden.sum())
        counts.answered += int(answered.sum())
        target = _dn(scene.target, model.bands, window)
        clear = is_clear(classes) & ~fill & (target > 0).all(axis=0)
        step = 1 + int(clear.sum()) // SAMPLED
        given = _reflectance(raw, stored)[:, clear][:, ::step]
        observed = target[:, clear][:, ::step] / 10_000
        counts.ratios.append((given.mean(axis=0) / observed.mean(axis=0)).ravel())
        counts.shifts.append((given - observed).ravel())
        try:
            dn = read_dn(raw, stored, file=model.delivered)
        except InputError:
            continue  # of another unit, as the ratios tell
        for what, frame in others.items():
            same = (dn == _dn(frame, model.bands, window)).all(axis=0) & answered
            counts.equal[what] = counts.equal.get(what, 0) + int(same.sum())
    return counts


def _reflectance(raw: np.ndarray, stored: Stored) -> np.ndarray:
    """Return what numbers would be, whatever their size: other readers refuse impossible ones."""
    offset, quantification = (
        np.array(each, np.float64)[:, None, None] for each in (stored.offset, stored.quantification)
    )
    return (raw.astype(np.float64) + offset) / quantification


def _dn(frame: Frame, bands: Sequence[str], window: Window) -> np.ndarray:
    """Return the DN of some bands of a frame, 0 in bands that it does not have."""
    image = raster.read(frame.path, window=window)
    empty = np.zeros(image.shape[1:], image.dtype)
    return np.stack([image[frame.bands.index(b)] if b in frame.bands else empty for b in bands])


def summary(table: pd.DataFrame) -> str:
    """Return the verdicts in one line."""
    counts = table.verdict.value_counts()
    return ", ".join(f"{counts[v]} {v}" for v in (FITS, DOUBTFUL, UNFIT, MISSING) if v in counts)
