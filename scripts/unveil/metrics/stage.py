"""The statistics of a run, written as tables: the report reads them, and so may anybody.

Scores on occluded pixels over bands, pooled per scene, then per place. MAE is over the bands
that every model of a scene gives, so that leaving out a hard band is no advantage; the other
metrics are over each model's own. Holm's family is all pairs of models, not only those with
the best one: which model is the best is read from the same data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from unveil import raster
from unveil.metrics.aggregate import CloudLevel, per_place, read_scores, scene_strata, season_strata
from unveil.metrics.published import DEFINITIONS, FIGURES
from unveil.metrics.published import REGION as PAPERS
from unveil.metrics.statistics import comparison_table, ranking_table
from unveil.metrics.strata import LOOKS, REGIONS
from unveil.scene import Scene, bbox, load_scene

METRICS = ("MAE", "PSNR", "SSIM", "SAM")
REGION = "occluded"
EDGES = {
    "days_to_clear_look": tuple(LOOKS.values())[:-1],
    "never_seen_fraction": (0.0, 0.1, 0.5),
}
"""Facts of scenes that results are sorted by, with the inner edges of the strata."""

TABLES = ("comparison", "ranking", "strata", "published", "definitions")


def write_statistics(
    *,
    metrics: Path,
    scenes: Iterable[Path],
    cloud_levels: Sequence[float],
    seed: int,
    outputs: Mapping[str, Path],
) -> None:
    """Compare the models of a run over places and write the tables.

    Args:
        metrics: ``metrics.csv`` of the run.
        scenes: the ``scene.json`` of every scene, which names its place.
        cloud_levels: cloud cover between the levels, fractions.
        seed: of the bootstrap.
        outputs: a path for each of :data:`TABLES`.

    Raises:
        InputError: if the metrics are missing, have other columns, or hold a scene twice.
    """
    scores = read_scores(metrics)
    loaded = {scene.id: scene for scene in map(load_scene, scenes)}
    places = {name: scene.place for name, scene in loaded.items()}
    compared = scores[
        scores["metric"].isin(METRICS) & (scores["region"] == REGION) & (scores["band"] == "all")
    ]
    compared = share_bands(scores, compared)
    pooled = per_place(compared, places=places, levels=name_levels(cloud_levels))
    tables = {
        "comparison": comparison_table(pooled, metrics=METRICS, seed=seed),
        "ranking": ranking_table(pooled, metrics=METRICS, seed=seed),
        "strata": rank_by_strata(scores, compared, scenes=loaded, seed=seed),
        "published": pd.DataFrame(map(dataclasses.asdict, FIGURES)),
        "definitions": pd.DataFrame(DEFINITIONS.items(), columns=["definition", "text"]),
    }
    for name, path in outputs.items():
        with raster.replacing(path) as temporary:
            tables[name].to_csv(temporary, index=False, float_format="%.8g")


def name_levels(bounds: Sequence[float]) -> list[CloudLevel]:
    """Return the cloud levels between ``bounds`` (fractions), named by their limits."""
    return [
        CloudLevel(f"{100 * low:g}–{100 * high:g} %", low, high)
        for low, high in pairwise((0.0, *bounds, 1.0))
    ]


def share_bands(scores: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Put the MAE over shared bands in the place of the MAE over each model's own.

    Args:
        scores: the metrics table, with a row a band.
        compared: rows over bands; those of MAE change.

    Returns:
        The rows of ``compared``; MAE is NaN on a scene whose models share no band, and as it
        was on a scene without scores by band.
    """
    rows = scores[(scores["metric"] == "MAE") & (scores["region"] == REGION)]
    rows = rows[rows["band"] != "all"].dropna(subset=["value"]).astype({"scene": str, "model": str})
    givers = rows.groupby(["scene", "band"], observed=True)["model"].transform("nunique")
    present = rows.groupby("scene")["model"].transform("nunique")
    shared = rows[givers == present].groupby(["scene", "model"])["value"].mean()
    keys = pd.MultiIndex.from_frame(compared[["scene", "model"]].astype(str))
    change = (compared["metric"] == "MAE") & compared["scene"].isin(set(rows["scene"]))
    return compared.assign(
        value=compared["value"].where(~change, shared.reindex(keys).to_numpy(np.float64))
    )


def rank_by_strata(
    scores: pd.DataFrame,
    compared: pd.DataFrame,
    *,
    scenes: Mapping[str, Scene],
    seed: int,
) -> pd.DataFrame:
    """Rank the models by MAE within scenes that are alike in one respect.

    Args:
        scores: the metrics table, with the facts of the scenes.
        compared: the rows to pool.
        scenes: scene id -> scene.
        seed: of the bootstrap.

    Returns:
        The columns of :func:`unveil.metrics.statistics.ranking_table`, where ``level`` is the
        stratum, and ``by``: ``days_to_clear_look``, ``never_seen_fraction`` or ``season``,
        and ``position``: the mean of that fact over the stratum's scenes, empty for seasons.
    """
    places = {name: scene.place for name, scene in scenes.items()}
    boxes = {name: bbox(scene.grid) for name, scene in scenes.items()}
    dated = {
        name: (scene.target.day, (boxes[name][1] + boxes[name][3]) / 2)
        for name, scene in scenes.items()
        if boxes[name]
    }
    sorted_by = {fact: scene_strata(scores, fact, edges) for fact, edges in EDGES.items()}
    sorted_by["season"] = season_strata(dated)
    parts = []
    for fact, strata in sorted_by.items():
        pooled = per_place(compared, places=places, strata=strata)
        ranked = ranking_table(pooled, metrics=("MAE",), seed=seed)
        ranked = ranked[ranked["level"] != "all"].assign(by=fact)
        parts.append(ranked.merge(_positions(scores, fact, strata), how="left"))
    parts += list(_rank_by_land(scores, places=places, seed=seed))
    return pd.concat(parts, ignore_index=True)


def _rank_by_land(
    scores: pd.DataFrame, *, places: Mapping[str, str], seed: int
) -> Iterator[pd.DataFrame]:
    """Rank the models on the hidden pixels of each class of land cover."""
    rows = scores[(scores["metric"] == "MAE") & (scores["band"] == "all")]
    for region in rows["region"].unique():
        if region in (*REGIONS, *LOOKS) or region.startswith(PAPERS):
            continue
        pooled = per_place(rows[rows["region"] == region], places=places)
        pooled = pooled[pooled["level"] == "all"]
        ranked = ranking_table(pooled, metrics=("MAE",), region=region, seed=seed)
        yield ranked.assign(level=region, region=REGION, by="land_cover")


def _positions(scores: pd.DataFrame, fact: str, strata: Mapping[str, str]) -> pd.DataFrame:
    """Mean of a fact over the scenes of each protocol and stratum."""
    rows = scores[(scores["metric"] == fact) & (scores["region"] == REGION)]
    rows = rows.dropna(subset=["value"]).drop_duplicates("scene").astype({"protocol": str})
    rows = rows.assign(level=rows["scene"].astype(str).map(strata).astype(object))
    means = rows.groupby(["protocol", "level"])["value"].mean()
    return means.rename("position").reset_index()
