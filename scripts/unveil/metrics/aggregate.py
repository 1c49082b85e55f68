"""Bring the scores of all jobs together: one long table, pooled by place.

Pooling is per scene, then per place, then over places: scenes of one place are not
independent samples, so a place with forty dates weighs as much as one with a single date.
Never per batch, never over the pixels of different scenes. The mean of per-scene values is
taken as is, so RMSE is a mean of RMSEs and PSNR a mean of decibels. Empty values (no such
pixels) are left out of a mean and counted out of ``n_scenes``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unveil.errors import InputError
from unveil.inputs import reading_input
from unveil.metrics.strata import SEASONS, season
from unveil.metrics.tables import COLUMNS, check_header

KEYS = ["model", "protocol", "level", "region", "band", "metric", "unit"]


@dataclass(frozen=True)
class CloudLevel:
    """A range of cloud cover, ``low <= cover < high`` (the last includes 1)."""

    name: str
    low: float
    high: float


LEVELS = (
    CloudLevel("light", 0.0, 0.35),
    CloudLevel("medium", 0.35, 0.65),
    CloudLevel("heavy", 0.65, 1.0),
)


def read_scores(path: str | Path) -> pd.DataFrame:
    """Read a metrics table; text columns as categories, empty values as NaN.

    Raises:
        InputError: if the file is missing or its columns are not those of
            :data:`unveil.metrics.tables.COLUMNS`.
    """
    if not Path(path).exists():
        raise InputError("file not found", file=path, remedy="run the workflow up to metrics")
    text = ("scene", "model", "protocol", "region", "band", "metric", "unit")
    numbers = {"cloud_cover": float, "value": float, "n_pixels": np.int64}
    with reading_input(path, "a table of metrics", remedy="run the metrics rule again"):
        with open(path, encoding="utf-8-sig") as stream:
            check_header(stream.readline(), path, COLUMNS)
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(text, "category") | numbers,
            keep_default_na=False,
            na_values={"value": [""]},
            encoding="utf-8-sig",
        )


def cloud_level(cover: pd.Series, levels: Sequence[CloudLevel] = LEVELS) -> pd.Series:
    """Return the name of the cloud level of each cover, as an ordered category.

    Raises:
        InputError: if the levels do not cover 0...1 without a gap.
    """
    edges = [levels[0].low, *(level.high for level in levels)]
    starts = [level.low for level in levels]
    if edges[0] != 0 or edges[-1] != 1 or starts != edges[:-1] or edges != sorted(set(edges)):
        raise InputError(
            f"levels {', '.join(f'{x.name} {x.low}-{x.high}' for x in levels)}",
            field="cloud_levels",
            remedy="give levels that cover 0 to 1 in order, without gap or overlap",
        )
    position = np.searchsorted(edges[1:-1], cover.to_numpy(), side="right")
    names = [level.name for level in levels]
    return pd.Series(
        pd.Categorical.from_codes(position, names, ordered=True), cover.index, name="level"
    )


def per_place(
    scores: pd.DataFrame,
    *,
    places: Mapping[str, str],
    levels: Sequence[CloudLevel] = LEVELS,
    strata: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Pool scores per scene, then per place.

    Args:
        scores: the metrics table (:func:`read_scores`).
        places: scene id -> place id; a scene that is not listed is its own place.
        levels: cloud levels; a level ``all`` over every cover is added.
        strata: scene id -> name of a stratum (:func:`scene_strata`, a season ...) to go
            into the column ``level`` instead of the cloud level; scenes that are not
            listed count in ``all`` only.

    Returns:
        One row for each of model, protocol, level, region, band, metric, unit and place
        with at least one value: ``value`` (mean over the place's scenes), ``n_scenes``,
        ``n_pixels`` (sum).

    Raises:
        InputError: if a scene was scored twice with one model.
    """
    _refuse_duplicates(scores)
    table = scores.dropna(subset=["value"])
    names = {scene: places.get(scene, scene) for scene in table["scene"].cat.categories}
    table = table.assign(place=table["scene"].map(names).astype("category"))
    if strata is None:
        level = cloud_level(table["cloud_cover"], levels)
    else:
        order = sorted(set(strata.values()))
        level = table["scene"].map(dict(strata)).astype(pd.CategoricalDtype(order, ordered=True))
    order = [*level.cat.categories, "all"]
    parts = []
    for values in (level, "all"):
        pooled = _pool(table.assign(level=values))
        parts.append(pooled.assign(level=pd.Categorical(pooled["level"], order, ordered=True)))
    return pd.concat(parts, ignore_index=True)


def _pool(table: pd.DataFrame) -> pd.DataFrame:
    grouped = table.groupby([*KEYS, "place"], observed=True, sort=False)
    return grouped.agg(
        value=("value", "mean"), n_scenes=("value", "size"), n_pixels=("n_pixels", "sum")
    ).reset_index()


def scene_strata(scores: pd.DataFrame, metric: str, edges: Sequence[float]) -> dict[str, str]:
    """Sort scenes by a fact of theirs, for :func:`per_place`.

    Args:
        scores: the metrics table (:func:`read_scores`).
        metric: ``days_to_clear_look`` or ``never_seen_fraction`` of the occluded pixels.
        edges: inner edges of the strata, rising; a value on an edge belongs to the lower.

    Returns:
        Scene id -> ``1: to 5``, ``2: to 15`` ... ``n: above 30``; the number keeps them in
        order. Scenes without a value (nothing occluded, never any look) are left out.
    """
    rows = scores[(scores["metric"] == metric) & (scores["region"] == "occluded")]
    rows = rows.dropna(subset=["value"]).drop_duplicates("scene")
    names = [f"{i}: to {edge:g}" for i, edge in enumerate(edges, 1)]
    names.append(f"{len(edges) + 1}: above {edges[-1]:g}")
    position = np.searchsorted(edges, rows["value"].to_numpy(), side="left")
    return {str(scene): names[i] for scene, i in zip(rows["scene"], position, strict=True)}


def season_strata(when_and_where: Mapping[str, tuple[dt.date, float]]) -> dict[str, str]:
    """Sort scenes by season, for :func:`per_place`: scene id -> ``1: winter`` ...

    Args:
        when_and_where: scene id -> date of the target and latitude in degrees.
    """
    names = {scene: season(*fact) for scene, fact in when_and_where.items()}
    return {scene: f"{SEASONS.index(name) + 1}: {name}" for scene, name in names.items()}


def _refuse_duplicates(scores: pd.DataFrame) -> None:
    keys = ["scene", "model", "region", "band", "metric"]
    twice = scores.duplicated(keys)
    if twice.any():
        row = scores[twice].iloc[0]
        raise InputError(
            f"model {row['model']} was scored twice on scene {row['scene']} "
            f"({row['metric']}, {row['region']}, {row['band']})",
            field="scene",
            remedy="give every scene its own id, and remove stale tables of earlier runs",
        )
