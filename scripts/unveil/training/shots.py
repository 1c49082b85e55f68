"""Clear images, and cloudy ones of nearly the same day: what networks of one image learn from.

Only NumPy and SciPy are needed here, so that a machine that trains needs no library of rasters.
"""

from __future__ import annotations

import io
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unveil.assembly.simulated_clouds import (
    apply_clouds,
    simulate_clouds,
    with_haze,
)
from unveil.bands import CLEAR, CLOUD, NODATA, REFLECTANCE_SCALE, SHADOW, band_positions
from unveil.errors import InputError
from unveil.training.vary import draw_cloud_options, draw_turn

if TYPE_CHECKING:
    from unveil.places.series import Series

LEAST_CLEAR = 0.97
"""Share of clear pixels of an image that may be a truth."""
LEAST_HIDDEN = 0.03
"""Hidden share of a cloudy image of a pair."""
RADAR_DAYS = 12
"""Most days between an image and its radar: the repeat cycle of one Sentinel-1."""
STORED_DN = 8
"""Step of the DN in a file of shots, below the noise of the sensor."""
BRIGHTEST = 1.5
"""Reflectance."""


@dataclass(frozen=True)
class Shot:
    """A clear image, and a cloudy one of nearly the same day where there is one.

    Attributes:
        place: id of its place.
        level: ``L1C`` or ``L2A``.
        bands: ESA names, B of them.
        clear: ``(B, H, W)`` uint16, reflectance x 10000, 0 where nodata.
        cloudy: ``(B, H, W)`` uint16 like it; None without a pair.
        hidden: ``(H, W)`` bool, cloud or shadow of the cloudy image; None without a pair.
        radar: ``(2, H, W)`` float32 dB, VV and VH, NaN where missing; None without.
        weight: how often it is drawn.
    """

    place: str
    level: str
    bands: tuple[str, ...]
    clear: np.ndarray
    cloudy: np.ndarray | None = None
    hidden: np.ndarray | None = None
    radar: np.ndarray | None = None
    weight: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.clear.shape[1], self.clear.shape[2]


@dataclass(frozen=True)
class Sample:
    """A scene to learn from.

    Attributes:
        cloudy: ``(B, H, W)`` float32 reflectance, NaN where nodata.
        clear: ``(B, H, W)`` float32, the truth, NaN where nodata.
        hidden: ``(H, W)`` bool, cloud or shadow.
        radar: ``(2, H, W)`` float32 dB, VV and VH; None without.
    """

    cloudy: np.ndarray
    clear: np.ndarray
    hidden: np.ndarray
    radar: np.ndarray | None


def shots_of(series: Series, *, pair_days: int) -> list[Shot]:
    """Return the clear dates of a series, each with the cloudy dates near it.

    Args:
        series: dates of a place with classes.
        pair_days: most days between the dates of a pair.

    Raises:
        InputError: if no date is clear enough to be a truth.
    """
    known = series.classes != NODATA
    occluded = np.isin(series.classes, (CLOUD, SHADOW))
    clear_share = ((series.classes == CLEAR) & known).mean(axis=(1, 2))
    truths = np.flatnonzero(clear_share >= LEAST_CLEAR)
    if not len(truths):
        raise InputError(
            f"{series.id} has no date that is {LEAST_CLEAR:.0%} clear",
            file="training table",
            field="series",
            remedy="leave it out",
        )
    dn = np.nan_to_num(np.clip(series.reflectance * REFLECTANCE_SCALE, 1, 65535), nan=0)
    dn = dn.round().astype(np.uint16)
    shots = [
        Shot(
            series.id,
            series.level,
            series.bands,
            dn[t],
            radar=_nearest_radar(series, int(series.days[t])),
        )
        for t in truths
    ]
    hidden_share = occluded.mean(axis=(1, 2))
    for t in np.flatnonzero(hidden_share >= LEAST_HIDDEN):
        away = np.abs(series.days[truths] - series.days[t])
        if away.min() <= pair_days:
            base = shots[int(away.argmin())]
            radar = _nearest_radar(series, int(series.days[t]))
            shots.append(replace(base, cloudy=dn[t], hidden=occluded[t], radar=radar))
    return [replace(shot, weight=series.weight / len(shots)) for shot in shots]


def _nearest_radar(series: Series, day: int) -> np.ndarray | None:
    away = np.abs(series.radar_days - day)
    if not len(away) or away.min() > RADAR_DAYS:
        return None
    nearest = series.radar[away.argmin()]
    return nearest if np.isfinite(nearest).any() else None


def write_shots(path: Path, shots: Sequence[Shot], *, notes: Mapping[str, Any]) -> None:
    """Write shots as one small file, DN rounded to :data:`STORED_DN`.

    An LZMA-compressed ``.npz``: differences along rows in planes of bytes, the radar in
    hundredths of dB.

    Args:
        path: the file.
        shots: what is written.
        notes: what else its reader must know, JSON-able.
    """
    arrays: dict[str, Any] = {}
    header = []
    for number, shot in enumerate(shots):
        facts = {"place": shot.place, "level": shot.level, "bands": shot.bands}
        header.append(facts | {"weight": shot.weight})
        for name in ("clear", "cloudy"):
            if (image := getattr(shot, name)) is not None:
                steps = np.where(image > 0, np.maximum(np.rint(image / STORED_DN), 1), 0)
                arrays[f"{number}/{name}"] = _planes(steps.astype(np.uint16))
        if shot.hidden is not None:
            arrays[f"{number}/hidden"] = shot.hidden
        if shot.radar is not None:
            values = np.rint(np.nan_to_num(shot.radar, nan=-300.0) * 100).astype(np.int16)
            arrays[f"{number}/radar"] = _planes(values.view(np.uint16))
    stream = io.BytesIO()
    np.savez(stream, header=np.array(json.dumps([header, dict(notes)])), **arrays)
    path.write_bytes(lzma.compress(stream.getvalue(), preset=6))


def read_shots(path: Path) -> tuple[list[Shot], dict[str, Any]]:
    """Read the shots and the notes of a file of :func:`write_shots`."""
    with np.load(io.BytesIO(lzma.decompress(path.read_bytes())), allow_pickle=False) as stored:
        header, notes = json.loads(str(stored["header"]))
        return [_read_shot(stored, number, facts) for number, facts in enumerate(header)], notes


def _read_shot(stored: Mapping[str, np.ndarray], number: int, facts: Mapping) -> Shot:
    def image(name: str) -> np.ndarray | None:
        key = f"{number}/{name}"
        return _joined(stored[key]) * np.uint16(STORED_DN) if key in stored else None

    radar = None
    if f"{number}/radar" in stored:
        values = _joined(stored[f"{number}/radar"]).view(np.int16).astype(np.float32) / 100
        radar = np.where(values <= -300, np.float32(np.nan), values)
    clear = image("clear")
    assert clear is not None
    hidden = stored[f"{number}/hidden"] if f"{number}/hidden" in stored else None
    bands = tuple(facts["bands"])
    return Shot(
        facts["place"],
        facts["level"],
        bands,
        clear,
        image("cloudy"),
        hidden,
        radar,
        facts["weight"],
    )


def _planes(values: np.ndarray) -> np.ndarray:
    """Return the differences along rows, low bytes before high ones, ``(2, ...)`` uint8."""
    change = np.diff(values.astype(np.int32), axis=-1, prepend=0)
    folded = np.where(change < 0, -2 * change - 1, 2 * change) & 0x1FFFF
    return np.stack([folded & 255, folded >> 8 & 255, folded >> 16]).astype(np.uint8)


def _joined(planes: np.ndarray) -> np.ndarray:
    low, middle, high = (plane.astype(np.int32) for plane in planes)
    folded = low | middle << 8 | high << 16
    change = np.where(folded & 1, -(folded + 1) // 2, folded // 2)
    return np.cumsum(change, axis=-1).astype(np.uint16)


def can_be_drawn(shot: Shot, bands: Sequence[str], size: int) -> bool:
    """Return whether a shot has the bands and the size of a sample."""
    return set(bands) <= set(shot.bands) and min(shot.shape) >= size


def draw_sample(
    shots: Sequence[Shot], bands: Sequence[str], *, size: int, rng: np.random.Generator
) -> Sample:
    """Draw a shot and cut a sample, turned and in another light.

    A shot without a pair gets simulated clouds, with their haze.

    Args:
        shots: to draw from, each at least ``size`` pixels wide.
        bands: ESA names of the bands wanted.
        size: edge of the sample in pixels.
        rng: the source of all randomness.
    """
    weights = np.array([shot.weight for shot in shots])
    shot = shots[rng.choice(len(shots), p=weights / weights.sum())]
    sample = turned(cut(shot, bands, size=size, rng=rng), rng)
    if shot.cloudy is None:
        sample = under_clouds(sample, bands, cover=draw_cover(rng), rng=rng)
    return relit(sample, rng)


def cut(shot: Shot, bands: Sequence[str], *, size: int, rng: np.random.Generator) -> Sample:
    """Return a window of a shot; the clear image stands for the cloudy one where there is none."""
    row, col = (int(rng.integers(n - size + 1)) for n in shot.shape)
    window = (slice(None), slice(row, row + size), slice(col, col + size))
    positions = band_positions(bands, shot.bands)
    clear = _reflectance(shot.clear[window][positions])
    cloudy = clear if shot.cloudy is None else _reflectance(shot.cloudy[window][positions])
    hidden = np.zeros(clear.shape[1:], bool) if shot.hidden is None else shot.hidden[window[1:]]
    return Sample(cloudy, clear, hidden, None if shot.radar is None else shot.radar[window])


def whole(shot: Shot, bands: Sequence[str], *, size: int) -> Sample:
    """Return the middle of a shot, as it is."""
    height, width = shot.shape
    row, col = (height - size) // 2, (width - size) // 2
    window = (slice(None), slice(row, row + size), slice(col, col + size))
    middle = replace(
        shot,
        clear=shot.clear[window],
        cloudy=None if shot.cloudy is None else shot.cloudy[window],
        hidden=None if shot.hidden is None else shot.hidden[window[1:]],
        radar=None if shot.radar is None else shot.radar[window],
    )
    return cut(middle, bands, size=size, rng=np.random.default_rng(0))


def under_clouds(
    sample: Sample, bands: Sequence[str], *, cover: float, rng: np.random.Generator
) -> Sample:
    """Return a clear sample under simulated clouds, their shadows and their haze."""
    clouds = simulate_clouds(
        sample.hidden.shape, cover=cover, rng=rng, options=draw_cloud_options(rng)
    )
    clouds = with_haze(clouds, rng=rng)
    cloudy = np.clip(apply_clouds(sample.clear, clouds, bands=bands, rng=rng), 0, BRIGHTEST)
    return replace(sample, cloudy=cloudy.astype(np.float32), hidden=clouds.classes != CLEAR)


def draw_cover(rng: np.random.Generator) -> float:
    """Draw a hidden share, all shares alike and one in twelve overcast."""
    return 1.0 if rng.random() < 1 / 12 else float(rng.uniform(0.03, 0.98))


def turned(sample: Sample, rng: np.random.Generator) -> Sample:
    """Return a sample in one of the eight symmetries of the square."""
    turn = draw_turn(rng)
    radar = None if sample.radar is None else turn(sample.radar)
    return Sample(turn(sample.cloudy), turn(sample.clear), turn(sample.hidden), radar)


def relit(sample: Sample, rng: np.random.Generator) -> Sample:
    """Return a sample under a sun of another height and a surface of slightly other colour.

    One factor for all bands and a small one for each; cloud and ground have the same.
    """
    bands = len(sample.clear)
    factors = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.04, bands)).astype(np.float32)
    factors = factors[:, None, None]
    return replace(sample, cloudy=sample.cloudy * factors, clear=sample.clear * factors)


def _reflectance(dn: np.ndarray) -> np.ndarray:
    return np.where(dn > 0, dn.astype(np.float32) / REFLECTANCE_SCALE, np.float32(np.nan))
