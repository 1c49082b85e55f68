"""The only pooling: which scenes, models and bands compare, and what the models have on them.

Pooling is per scene, then per place, then over places: scenes of one place are not
independent samples, so a place with forty dates weighs as much as one with a single date.
Never per batch, never over the pixels of different scenes. The mean of per-scene values is
taken as is, so RMSE is a mean of RMSEs and PSNR a mean of decibels.

Models are compared like for like: on the scenes that every *ranked* model has a value for, and
by MAE over the bands that every ranked model gives there, so that leaving out hard scenes or
bands is no advantage; by other metrics, on the scenes where it gives the bands that most models
give. A model that has too few of the scenes is not ranked: its mean stands on
its own scenes and bands, and it changes nothing between the others. Means, ranks, tests and
intervals of a run all come from here; the report prints them.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from unveil.bands import BANDS
from unveil.errors import InputError
from unveil.metrics import registry
from unveil.metrics.levels import ALL, level_names, level_of
from unveil.metrics.strata import SEASONS, season
from unveil.metrics.tables import BASELINE, POOLED

MIN_SHARE = 0.8
"""A model is ranked when it keeps at least this share of the scenes comparable."""


@dataclass(frozen=True)
class Column:
    """One metric of one protocol, level, region and band: a column of a table of models.

    Attributes:
        protocol: where the truth comes from.
        level: cloud level or other stratum; ``all`` for every scene.
        region: which pixels.
        band: ESA name, or ``all``.
        metric: the metric.
        values: scenes x models, each model's own values, NaN where it has none.
        by_band: the same by ``(scene, band)``, for MAE over bands; None otherwise.
        places: scene -> place.
        ranked: models that are compared with each other, in the order of ``values``.
        common: scenes x ranked models on like terms, without gaps.
        shared_bands: bands compared on scenes whose ranked models give different ones.
    """

    protocol: str
    level: str
    region: str
    band: str
    metric: str
    values: pd.DataFrame
    by_band: pd.DataFrame | None
    places: Mapping[str, str]
    ranked: tuple[str, ...]
    common: pd.DataFrame
    shared_bands: tuple[str, ...]

    @property
    def apart(self) -> list[str]:
        """Models with values that are not ranked."""
        some = self.values.notna().any()
        return [model for model in self.values.columns[some] if model not in self.ranked]


def pool(
    scores: pd.DataFrame,
    *,
    places: Mapping[str, str],
    models: Mapping[str, str],
    levels: Mapping[str, Collection[str]],
    by_band: pd.DataFrame | None = None,
) -> Iterator[Column]:
    """Find what compares, for each protocol, region, band, metric and level with a value.

    Args:
        scores: rows of the metrics table (:func:`unveil.metrics.reading.read_scores`).
        places: scene -> place.
        models: id -> kind, in the order of the run.
        levels: name of a level -> its scenes, in order (:func:`by_cover`, :func:`by_fact` ...).
        by_band: rows of MAE by band, which tell the bands that models give; without them every
            metric is over each model's own.

    Raises:
        InputError: if a scene has no place or was scored twice, or a model is not in
            ``models``.
    """
    _refuse_strangers(scores, places, models)
    _refuse_duplicates(scores)
    known = scores.dropna(subset=["value"])
    per_band = {} if by_band is None else _by_protocol_and_region(by_band.dropna(subset=["value"]))
    for (protocol, region), inside in _by_protocol_and_region(known).items():
        bands = per_band.get((protocol, region))
        deep = None if bands is None else _scenes_by_models(bands, ["scene", "band"], models)
        alike = None if deep is None else gives_usual_bands(deep, models)
        for (band, metric), rows in inside.groupby(["band", "metric"], observed=True, sort=False):
            wide = _scenes_by_models(rows, ["scene"], models)
            if metric != "MAE":
                terms = (None, alike if band == "all" else None)
            else:
                terms = (deep if band == "all" else None, None)
            for level, scenes in levels.items():
                chosen = wide[wide.index.isin(list(scenes))]
                if len(chosen):
                    head = (protocol, level, region, band, metric)
                    yield _compare_like_for_like(head, chosen, *terms, places=places, models=models)


def _compare_like_for_like(
    head: tuple[str, str, str, str, str],
    values: pd.DataFrame,
    by_band: pd.DataFrame | None,
    alike: pd.DataFrame | None,
    *,
    places: Mapping[str, str],
    models: Mapping[str, str],
) -> Column:
    like = values
    if alike is not None:  # where nothing is known of the bands, nothing is held against them
        like = values.where(alike.reindex_like(values).fillna(value=True).astype(bool))
    ranked = comparable(like.notna(), [m for m, kind in models.items() if kind == BASELINE])
    common, bands = share(like, by_band, ranked)
    return Column(*head, values, by_band, places, tuple(ranked), common, bands)


def gives_usual_bands(by_band: pd.DataFrame, models: Mapping[str, str]) -> pd.DataFrame:
    """Find where models were scored on the bands that most models give of a scene.

    Of sets of bands that as many models give, the largest is the usual one. Baselines give
    whatever there is, and have no say where a model answered.

    Args:
        by_band: ``(scene, band)`` x models, NaN where a model does not give the band.
        models: id -> kind.

    Returns:
        Scenes x models, True where the bands are the usual ones.
    """
    given, found = by_band.notna(), {}
    voters = [models.get(model) != BASELINE for model in by_band.columns]
    for scene, bands in given.groupby(level="scene", observed=True):
        sets = [tuple(column) for column in bands.to_numpy().T]
        asked = [one for one, votes in zip(sets, voters, strict=True) if votes and any(one)]
        counts = Counter(asked or (one for one in sets if any(one)))
        usual = max(counts, key=lambda one: (counts[one], sum(one)), default=())
        found[scene] = [one == usual for one in sets]
    return pd.DataFrame.from_dict(found, orient="index", columns=by_band.columns)


def comparable(present: pd.DataFrame, baselines: Sequence[str]) -> list[str]:
    """Find the models that can be compared fairly: they are ranked.

    Models enter from the one with most scenes down, as long as the scenes common to all of
    them stay at least :data:`MIN_SHARE` of what the best-covered model (baselines aside) has.

    Args:
        present: scenes x models, True where there is a value.
        baselines: models that run everywhere and so say nothing about coverage.

    Returns:
        The ranked models, in the order of the columns.
    """
    counts = present.sum()
    order = [model for model in present if model not in baselines and counts[model]]
    order.sort(key=lambda model: -counts[model])  # stable: ties in the order of the run
    order += [model for model in baselines if model in present and counts[model]]
    common, ranked = pd.Series(True, present.index), set[str]()
    for model in order:
        together = common & present[model]
        if together.sum() >= MIN_SHARE * counts[order[0]]:
            common, ranked = together, {*ranked, model}
    return [model for model in present if model in ranked]


def share(
    values: pd.DataFrame, by_band: pd.DataFrame | None, models: Sequence[str]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Put models on like terms: the scenes that all have, and there the bands that all give.

    Args:
        values: scenes x models.
        by_band: ``(scene, band)`` x models; None where values do not depend on bands.
        models: the models to compare.

    Returns:
        Scenes x ``models`` without gaps, and the bands used where they differ (none where
        they do not). A scene without a shared band is left out.
    """
    common = values[list(models)].dropna()
    if by_band is None or common.empty:
        return common, ()
    bands = by_band.loc[by_band.index.isin(common.index, level="scene"), list(models)]
    bands = bands.dropna(how="all")
    everyone = bands.notna().all(axis=1)
    mixed = everyone.index[~everyone].unique("scene")
    shared = bands[everyone & bands.index.isin(mixed, level="scene")]
    means = shared.groupby(level="scene").mean()
    common = common.drop(mixed.difference(means.index))
    common.loc[means.index] = means
    used = set(shared.index.unique("band"))
    return common, tuple(band for band in BANDS if band in used)


def over_places(values: pd.DataFrame, places: Mapping[str, str]) -> pd.DataFrame:
    """Pool scenes by place: scenes x models to places x models, NaN where there is no value."""
    return values.groupby(values.index.map(places)).mean().rename_axis("place")


def pair(column: Column, first: str, second: str) -> pd.DataFrame:
    """Put two models of a column on like terms, where not both are ranked: scenes x 2."""
    return share(column.values, column.by_band, (first, second))[0]


def pooled_table(columns: Iterable[Column]) -> pd.DataFrame:
    """Return the means over places of all models of all columns, a row each.

    Returns:
        Columns :data:`POOLED`: ``n_scenes`` and ``n_places`` are behind the value, ``ranked``
        is 1 where it stands on the common scenes, ``rank`` the order among those (empty where
        the metric has no better side), ``stratum_scenes`` how many scenes of the level have
        any value, ``shared_bands`` as of :class:`Column`, separated by spaces.
    """
    rows = [row for column in columns for row in _pooled_rows(column)]
    return pd.DataFrame(rows, columns=list(POOLED)).astype({"rank": "Int64"})


def _pooled_rows(column: Column) -> Iterator[tuple]:
    head = (column.protocol, column.level, column.region, column.band, column.metric)
    unit = registry.METRICS[column.metric].unit
    common = over_places(column.common, column.places)
    means = common.mean().to_dict()
    standing = registry.best_first(means, column.metric) if len(common) else []
    for model in column.ranked:
        counts = len(column.common), len(common), 1
        rank = standing.index(model) + 1 if model in standing else None
        ends = rank, len(column.values), " ".join(column.shared_bands)
        yield *head, unit, model, means[model], *counts, *ends
    apart = over_places(column.values[column.apart], column.places)
    for model in column.apart:
        counts = column.values[model].count(), apart[model].count(), 0
        yield *head, unit, model, apart[model].mean(), *counts, None, len(column.values), ""


def by_cover(scores: pd.DataFrame, bounds: Sequence[float]) -> dict[str, list[str]]:
    """Sort scenes into the levels of cloud cover between ``bounds``, and into ``all``."""
    rows = scores.drop_duplicates("scene")
    names = level_of(rows["cloud_cover"].to_numpy(), bounds)
    scenes = rows["scene"].astype(str).to_numpy()
    levels = {name: scenes[names == name].tolist() for name in level_names(bounds)}
    return levels | {ALL: scenes.tolist()}


def by_fact(scores: pd.DataFrame, metric: str, edges: Sequence[float]) -> dict[str, list[str]]:
    """Sort scenes by a fact of their hidden pixels.

    Args:
        scores: the metrics table.
        metric: ``days_to_clear_look`` or ``never_seen_fraction``.
        edges: inner edges of the strata, rising; a value on an edge belongs to the lower.

    Returns:
        ``1: to 5``, ``2: to 15`` ... ``n: above 30`` -> scenes; the number keeps them in
        order. Scenes without a value (nothing hidden, never any look) are left out.
    """
    rows = scores[(scores["metric"] == metric) & (scores["region"] == "occluded")]
    rows = rows.dropna(subset=["value"]).drop_duplicates("scene")
    names = [f"{i}: to {edge:g}" for i, edge in enumerate(edges, 1)]
    names.append(f"{len(edges) + 1}: above {edges[-1]:g}")
    position = np.searchsorted(edges, rows["value"].to_numpy(), side="left")
    scenes = rows["scene"].astype(str).to_numpy()
    return {name: scenes[position == i].tolist() for i, name in enumerate(names)}


def by_season(when_and_where: Mapping[str, tuple[dt.date, float]]) -> dict[str, list[str]]:
    """Sort scenes by season: ``1: winter`` ... -> scenes.

    Args:
        when_and_where: scene -> date of the target and latitude in degrees.
    """
    found = {scene: season(*fact) for scene, fact in when_and_where.items()}
    return {
        f"{i}: {name}": [scene for scene, of in found.items() if of == name]
        for i, name in enumerate(SEASONS, 1)
    }


def _by_protocol_and_region(rows: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    groups = rows.groupby(["protocol", "region"], observed=True, sort=False)
    return {(str(protocol), str(region)): inside for (protocol, region), inside in groups}


def _scenes_by_models(
    rows: pd.DataFrame, index: list[str], models: Mapping[str, str]
) -> pd.DataFrame:
    plain = rows.astype({name: object for name in (*index, "model")})
    wide = plain.pivot(index=index, columns="model", values="value")
    return wide.reindex(columns=[model for model in models if model in wide])


def _refuse_strangers(
    scores: pd.DataFrame, places: Mapping[str, str], models: Mapping[str, str]
) -> None:
    for field, known, whole in (("scene", places, "place"), ("model", models, "kind")):
        strangers = sorted(map(str, set(scores[field].unique()) - set(known)))
        if strangers:
            raise InputError(
                f"{field} {strangers[0]!r} has scores, but no {whole}: it is not of this run",
                field=field,
                remedy="run the workflow again with --forcerun collect_metrics",
            )


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
