"""The statistics of a run, written as tables: the report reads them, and so may anybody.

Every number comes from one pooling (:mod:`unveil.metrics.aggregate`). Models are compared and
ranked on hidden pixels over bands. Holm's family is all pairs of ranked models, not only those
with the best one: which model is the best is read from the same data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unveil import raster
from unveil.metrics import published
from unveil.metrics.aggregate import (
    Column,
    by_cover,
    by_fact,
    by_season,
    gives_usual_bands,
    pool,
    pooled_table,
)
from unveil.metrics.levels import ALL
from unveil.metrics.reading import read_scores
from unveil.metrics.registry import METRICS
from unveil.metrics.statistics import comparison_table, ranking_table
from unveil.metrics.strata import LOOKS, REGIONS
from unveil.metrics.tables import PAPERS
from unveil.scene import Scene, bbox, load_scene

REGION = "occluded"
EDGES = {
    "days_to_clear_look": tuple(LOOKS.values())[:-1],
    "never_seen_fraction": (0.0, 0.1, 0.5),
}
"""Facts of scenes that results are sorted by, with the inner edges of the strata."""


def write_statistics(
    *,
    metrics: Path,
    scenes: Iterable[Path],
    models: Mapping[str, str],
    cloud_levels: Sequence[float],
    outputs: Mapping[str, Path],
) -> None:
    """Compare the models of a run over places and write the tables.

    Args:
        metrics: ``metrics.csv`` of the run.
        scenes: the ``scene.json`` of every scene, which names its place.
        models: id -> kind, in the order of the run.
        cloud_levels: cloud cover between the levels, fractions.
        outputs: a path for each of :data:`unveil.metrics.tables.TABLES`.

    Raises:
        InputError: if the metrics are missing, have other columns, hold a scene twice, or are
            not of these scenes and models.
    """
    scores = read_scores(metrics)
    loaded = {scene.id: scene for scene in map(load_scene, scenes)}
    places = {name: scene.place for name, scene in loaded.items()}
    run = Run(scores, loaded, {"places": places, "models": models})
    columns = list(pool_scores(run, cloud_levels))
    compared = [c for c in columns if c.region == REGION and METRICS[c.metric].compared]
    tables = {
        "pooled": pooled_table([*columns, *pool_bands(run)]),
        "comparison": comparison_table(compared),
        "ranking": ranking_table(compared),
        "strata": rank_by_strata(run),
        "published": pd.DataFrame(map(dataclasses.asdict, published.FIGURES)),
        "definitions": pd.DataFrame(published.DEFINITIONS.items(), columns=["definition", "text"]),
    }
    for name, path in outputs.items():
        with raster.replacing(path) as temporary:
            tables[name].to_csv(temporary, index=False, float_format="%.8g")


@dataclasses.dataclass(frozen=True)
class Run:
    """What the metrics of a run are about.

    Attributes:
        scores: the metrics table.
        scenes: scene id -> scene.
        known: places of the scenes and kinds of the models, as :func:`pool` wants them.
    """

    scores: pd.DataFrame
    scenes: Mapping[str, Scene]
    known: Mapping[str, Mapping[str, str]]

    @property
    def over_bands(self) -> pd.DataFrame:
        """Scores over bands that compare models, the papers' definitions aside."""
        rows = self.scores[self.scores["band"] == "all"]
        rows = rows[~rows["region"].str.startswith(PAPERS)]
        return rows[rows["metric"].map(lambda name: METRICS[name].use != "fact").astype(bool)]

    @property
    def by_band(self) -> pd.DataFrame:
        """MAE of each band."""
        return self.scores[(self.scores["band"] != "all") & (self.scores["metric"] == "MAE")]


def pool_scores(run: Run, cloud_levels: Sequence[float]) -> Iterator[Column]:
    """Pool every metric of every region, by cloud level."""
    levels = by_cover(run.scores, cloud_levels)
    return pool(run.over_bands, by_band=run.by_band, levels=levels, **run.known)


def pool_bands(run: Run) -> Iterator[Column]:
    """Pool the MAE of each band on hidden pixels, over all cloud levels."""
    rows = run.by_band[run.by_band["region"] == REGION]
    return pool(rows, levels={ALL: set(rows["scene"])}, **run.known)


def rank_by_strata(run: Run) -> pd.DataFrame:
    """Rank the models by MAE within scenes that are alike in one respect.

    Args:
        run: the scores, and the scenes with their facts.

    Returns:
        The columns of :func:`unveil.metrics.statistics.ranking_table`, where ``level`` is the
        stratum, and ``by``: ``days_to_clear_look``, ``never_seen_fraction``, ``season`` or
        ``land_cover``, and ``position``: the mean of that fact over the stratum's scenes,
        empty for seasons and land cover.
    """
    rows = run.over_bands
    rows = rows[(rows["metric"] == "MAE") & (rows["region"] == REGION)]
    sorted_by = {fact: by_fact(run.scores, fact, edges) for fact, edges in EDGES.items()}
    sorted_by["season"] = by_season(_when_and_where(run.scenes))
    parts = []
    for fact, levels in sorted_by.items():
        columns = pool(rows, by_band=run.by_band, levels=levels, **run.known)
        ranked = ranking_table(columns).assign(by=fact)
        parts.append(ranked.merge(_positions(run.scores, fact, levels), how="left"))
    parts.append(_rank_by_land(run))
    return pd.concat(parts, ignore_index=True)


def _when_and_where(scenes: Mapping[str, Scene]) -> dict[str, tuple]:
    boxes = {name: bbox(scene.grid) for name, scene in scenes.items()}
    return {
        name: (scenes[name].target.day, (box[1] + box[3]) / 2) for name, box in boxes.items() if box
    }


def _rank_by_land(run: Run) -> pd.DataFrame:
    """Rank the models on the hidden pixels of each class of land cover."""
    rows = run.over_bands
    rows = rows[(rows["metric"] == "MAE") & ~rows["region"].isin([*REGIONS, *LOOKS])]
    rows = _on_usual_bands(run, rows)
    columns = pool(rows, levels={ALL: set(rows["scene"])}, **run.known)
    ranked = ranking_table(columns)
    return ranked.assign(level=ranked["region"], region=REGION, by="land_cover", position=np.nan)


def _on_usual_bands(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of models that give the usual bands of a scene (no MAE by band is needed)."""
    bands = run.by_band[run.by_band["region"] == REGION].dropna(subset=["value"])
    if bands.empty:
        return rows
    keys = ["scene", "band", "model"]
    wide = bands.astype(dict.fromkeys(keys, object)).pivot(
        index=["scene", "band"], columns="model", values="value"
    )
    alike = gives_usual_bands(wide, run.known["models"]).stack()
    pairs = pd.MultiIndex.from_frame(rows[["scene", "model"]].astype(object))
    return rows[alike.reindex(pairs).fillna(value=True).to_numpy(bool)]


def _positions(
    scores: pd.DataFrame, fact: str, levels: Mapping[str, Sequence[str]]
) -> pd.DataFrame:
    """Mean of a fact over the scenes of each protocol and stratum."""
    rows = scores[(scores["metric"] == fact) & (scores["region"] == REGION)]
    rows = rows.dropna(subset=["value"]).drop_duplicates("scene").astype({"protocol": str})
    level = {scene: name for name, scenes in levels.items() for scene in scenes}
    rows = rows.assign(level=rows["scene"].astype(str).map(level).astype(object))
    means = rows.groupby(["protocol", "level"])["value"].mean()
    return means.rename("position").reset_index()
