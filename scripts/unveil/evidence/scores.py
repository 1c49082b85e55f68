"""The scores of a run, as evidence counts them: one row a scene and method, then one a place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from unveil.metrics.intervals import (
    Interval,
    date_interval,
    error_intervals,
    place_intervals,
)
from unveil.metrics.reading import read_scores
from unveil.scene import Scene, load_scene

REGION = "occluded"
ERRORS = ("MAE", "MAE_level_removed")
LEAST_METHODS = 8
"""Fewest methods whose order is compared between protocols."""
LEAST_DATES = 8
"""Fewest dates of a place that have an interval: simulated down to that number."""


@dataclass(frozen=True)
class Evidence:
    """What is known of every scene and method.

    Attributes:
        table: one row a scene and method: ``scene``, ``place``, ``day`` (of the target, a
            proleptic ordinal), ``protocol``, ``level``, ``model``, the :data:`ERRORS` (reflectance,
            over the bands that the method gives) and ``answered`` (share of the hidden pixels).
        bands: one row a scene, method and band: ``scene``, ``place``, ``protocol``, ``level``,
            ``model``, ``band``, ``MAE``.
        floors: one row a real pair: ``scene``, ``place``, ``floor``, ``floor_after_line``.
    """

    table: pd.DataFrame
    bands: pd.DataFrame
    floors: pd.DataFrame


def read_evidence(
    metrics: Path, scenes: Iterable[Path], levels: Mapping[str, float | None]
) -> Evidence:
    """Read the scores of a run at hidden pixels.

    Args:
        metrics: ``metrics.csv``.
        scenes: the ``scene.json`` of every scene.
        levels: scene -> cover that was asked for; of a real pair, which has none, its own counts.

    Raises:
        InputError: if a table or a scene is missing or not as it should be.
    """
    loaded = {scene.id: scene for scene in map(load_scene, scenes)}
    scores = read_scores(metrics)
    scores = scores[(scores["region"] == REGION) & scores["value"].notna()]
    facts = pd.DataFrame(
        {
            "place": {name: scene.place for name, scene in loaded.items()},
            "day": {
                name: date.fromisoformat(s.target.date).toordinal() for name, s in loaded.items()
            },
            "level": {name: _level(scene, levels.get(name)) for name, scene in loaded.items()},
        }
    )
    return Evidence(
        _by_metric(scores[scores["band"] == "all"], ["scene", "model", "protocol"], facts),
        _by_metric(scores[scores["band"] != "all"], ["scene", "model", "protocol", "band"], facts),
        pd.DataFrame([_floor(scene) for scene in loaded.values() if scene.protocol == "paired"]),
    )


def _by_metric(scores: pd.DataFrame, keys: list[str], facts: pd.DataFrame) -> pd.DataFrame:
    plain = scores.astype({name: str for name in [*keys, "metric"]})
    wide = plain.pivot_table(index=keys, columns="metric", values="value").reset_index()
    kept = [*keys, *(name for name in (*ERRORS, "answered") if name in wide)]
    return wide[kept].join(facts, on="scene").rename_axis(columns=None)


def _level(scene: Scene, wanted: float | None) -> float:
    return float(scene.facts.get("occluded", np.nan)) if wanted is None else wanted


def _floor(scene: Scene) -> dict[str, object]:
    names = ("floor", "floor_after_line")
    found = {name: scene.facts.get(name, np.nan) for name in names}
    return {"scene": scene.id, "place": scene.place, **found}


def over_places(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return places x methods: means over the scenes of each place."""
    return rows.pivot_table(index="place", columns="model", values=value, observed=True)


def summarise(rows: pd.DataFrame, value: str) -> dict[str, Interval]:
    """Return the mean error over places of every method with its interval."""
    table = over_places(rows.dropna(subset=[value]), value)
    if table.empty:
        return {}
    return dict(zip(table.columns, error_intervals(table.to_numpy()), strict=True))


def over_dates(rows: pd.DataFrame) -> Interval:
    """Return the mean error of one method over the dates of one place, with its interval.

    Args:
        rows: of real pairs; fewer than :data:`LEAST_DATES` dates have no limits.
    """
    if rows["day"].nunique() >= LEAST_DATES:
        return date_interval(rows["MAE"].to_numpy(), rows["day"].to_numpy())
    return Interval(float(rows["MAE"].mean()), float("nan"), float("nan"), 1)


def ratios(bands: pd.DataFrame, against: str) -> dict[str, Interval]:
    """Return how many times the MAE of one method every other has, whatever a place's errors are.

    Args:
        bands: rows of :attr:`Evidence.bands` of one protocol.
        against: the method that the others are held against.

    Returns:
        Method -> geometric mean over places of the ratio of the means over the scenes and bands
        that both answer, with its interval.
    """
    keys = ["place", "scene", "band"]
    wide = bands.pivot_table(index=keys, columns="model", values="MAE", observed=True)
    if against not in wide:
        return {}
    found = {}
    for name in wide.columns.drop(against):
        means = wide[[name, against]].dropna().groupby("place", observed=True).mean()
        logs = np.log((means[name] / means[against]).where(lambda ratio: ratio > 0).dropna())
        if len(logs):
            (one,) = place_intervals(logs.to_numpy()[:, None])
            mean, low, high = np.exp([one.mean, one.low, one.high]).tolist()
            found[name] = Interval(mean, low, high, one.n_places)
    return found


def gaps(bands: pd.DataFrame, against: str) -> dict[str, Interval]:
    """Return how much larger the MAE of every method is than that of one.

    Args:
        bands: rows of :attr:`Evidence.bands` of one protocol.
        against: the method that the others are held against.

    Returns:
        Method -> difference in reflectance, mean over places, on the scenes and bands that both
        answer.
    """
    keys = ["place", "scene", "band"]
    wide = bands.pivot_table(index=keys, columns="model", values="MAE", observed=True)
    if against not in wide:
        return {}
    difference = wide.sub(wide[against], axis=0)
    by_place = difference.groupby("scene", observed=True).mean()
    by_place.index = bands.drop_duplicates("scene").set_index("scene")["place"][by_place.index]
    table = by_place.groupby(level=0).mean()
    table = table[[name for name in table if name != against and table[name].notna().any()]]
    if table.empty:
        return {}
    return dict(zip(table.columns, place_intervals(table.to_numpy()), strict=True))


def best_of(means: Mapping[str, Interval], methods: Iterable[str]) -> str:
    """Return the method of least mean among some that have one on the most places; else nothing."""
    some = [name for name in methods if name in means]
    most = max((means[name].n_places for name in some), default=0)
    whole = [name for name in some if means[name].n_places == most]
    return min(whole, key=lambda name: means[name].mean, default="")


def agreement(first: pd.DataFrame, second: pd.DataFrame) -> tuple[float, int]:
    """Return how alike two protocols order the methods at the places that both have.

    Every place counts alike, whatever its errors are: by geometric means over places.

    Args:
        first: rows of one protocol.
        second: rows of another.

    Returns:
        Spearman's rank correlation, NaN for fewer than :data:`LEAST_METHODS`, and the number of
        methods. A method counts where both have it at the same places.
    """
    one, other = over_places(first, "MAE"), over_places(second, "MAE")
    places = one.index.intersection(other.index)
    both = geometric_means([one.loc[places], other.loc[places]])
    if len(both) < LEAST_METHODS or not len(places):
        return float("nan"), len(both)
    return float(stats.spearmanr(*both.to_numpy().T).statistic), len(both)


def geometric_means(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return methods x tables: geometric means over places of the methods that all have everywhere.

    Args:
        tables: places x methods, as :func:`over_places` returns them.
    """
    logs = [np.log(table.where(table > 0)).mean(skipna=False) for table in tables]
    return np.exp(pd.concat(logs, axis=1, keys=range(len(logs))).dropna())
