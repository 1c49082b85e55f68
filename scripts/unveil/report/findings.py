"""What the report is made from: metrics, skips, manifest and scenes, read and checked once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from unveil import raster
from unveil.bands import NODATA
from unveil.errors import InputError
from unveil.guarded import read_json, reading_input
from unveil.metrics.levels import check_bounds
from unveil.metrics.reading import read_scores, read_statistics, read_table
from unveil.metrics.tables import BASELINE, PAPERS, SKIPPED_COLUMNS
from unveil.scene import Frame, Scene, cloud_cover, load_scene

MASK_PREVIEW = 512
NO_WEIGHTS = "weights not fetched"
"""How the reason begins that models without weights give."""


@dataclass(frozen=True)
class ReportOptions:
    """What a user may choose about the report.

    Attributes:
        title: heading of the page.
        cloud_levels: cloud cover at which one level ends and the next begins, fractions.
        max_scenes_in_picture: rows of the picture, spread over cloud cover.
        min_places: fewest places from which one model is called better than another.
        chip_px: longest side of a thumbnail, pixels.
        stretch_percentiles: lower and upper percentile of the fixed stretch of a row.
    """

    title: str = "Which cloud removal can you trust here?"
    cloud_levels: tuple[float, ...] = (0.35, 0.65)
    max_scenes_in_picture: int = 24
    min_places: int = 6
    chip_px: int = 256
    stretch_percentiles: tuple[float, float] = (2.0, 98.0)

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            InputError: naming the option.
        """
        check_bounds(self.cloud_levels)
        low, high = self.stretch_percentiles
        if not 0 <= low < high <= 100:
            raise InputError(
                f"{[low, high]} are no percentiles",
                field="report.stretch_percentiles",
                remedy="give two rising numbers between 0 and 100, for example [2, 98]",
            )


PIXELWISE = ("MAE", "RMSE", "SAM")
"""Metrics that see hidden pixels alone; windows, as of SSIM, see what lies around them as well."""
CHOSEN_BY = ("protocol", "region", "metric")
"""Columns of scores that stay categories: comparing them takes a fiftieth of the time."""


@dataclass(frozen=True)
class Method:
    """A model as the report names it.

    Attributes:
        id: id in the run.
        title: printed name; says "trained here" when the weights were.
        kind: implementation.
        origin: where its weights come from (``published trained-here none external``).
        citation: source to cite.
        weights: file of the weights, empty without.
        sha256: checksum of the weights, empty without.
        parameters: learned numbers in the weights, None without.
        series: True where it looks at other dates, too, False where at the target alone, None
            where that is not known.
    """

    id: str
    title: str
    kind: str
    origin: str
    citation: str = ""
    weights: str = ""
    sha256: str = ""
    parameters: int | None = None
    series: bool | None = None

    @property
    def is_baseline(self) -> bool:
        """True for the cloudy input itself, the do-nothing baseline."""
        return self.kind == BASELINE


@dataclass(frozen=True)
class Statistics:
    """What the metrics stage found over places; the columns are in ``INTERFACE.yaml``.

    Attributes:
        pooled: means over places, one row per model and column of a table.
        comparison: paired comparisons, one row per pair of models.
        ranking: mean and mean rank, one row per model.
        strata: as ``ranking``, by facts other than cloud cover.
        published: figures that papers print.
        definitions: what is peculiar to the papers' definitions of the metrics.
    """

    pooled: pd.DataFrame
    comparison: pd.DataFrame
    ranking: pd.DataFrame
    strata: pd.DataFrame
    published: pd.DataFrame
    definitions: pd.DataFrame


@dataclass(frozen=True)
class Findings:
    """Everything the report may say.

    Attributes:
        scenes: scene id -> scene, in table order.
        methods: model id -> what is known of it, in the order of the manifest.
        scores: metric rows over bands, the columns of ``metrics.csv``.
        paper_scores: the same by the papers' definitions, over bands, ``region`` without
            its prefix.
        skipped: rows of ``skipped.csv``; an empty model means every model.
        cover: scene id -> cloud cover of the target, fraction 0...1.
        manifest: the run manifest as written.
        statistics: comparisons over places.
    """

    scenes: dict[str, Scene]
    methods: dict[str, Method]
    scores: pd.DataFrame
    paper_scores: pd.DataFrame
    skipped: pd.DataFrame
    cover: dict[str, float]
    manifest: dict[str, Any]
    statistics: Statistics

    def reasons(self, scene: str, model: str) -> list[str]:
        """Return the recorded reasons why ``model`` has no result on ``scene``."""
        table = self.skipped
        rows = table[(table["scene"] == scene) & table["model"].isin([model, ""])]
        return list(dict.fromkeys(rows["reason"]))

    @cached_property
    def twins(self) -> dict[str, str]:
        """Models that give the pixels of another one under cloud: model -> the first such.

        Told by their scores: :data:`PIXELWISE` of hidden pixels are the same on every scene.
        """
        rows = self.scores[self.scores["region"] == "occluded"].dropna(subset=["value"])
        wide = rows[rows["metric"].isin(PIXELWISE)].pivot(
            index=["scene", "metric"], columns="model", values="value"
        )
        found: dict[bytes, str] = {}
        twins = {}
        for model in (m for m in self.methods if m in wide):
            values = wide[model].fillna(-1.0).to_numpy().tobytes()
            if model != found.setdefault(values, model):
                twins[model] = found[values]
        return twins

    @cached_property
    def floors(self) -> dict[str, dict[str, Any]]:
        """By protocol what the dates of its pairs differ by themselves, mean over scenes."""
        found: dict[str, list[tuple[float, float]]] = {}
        for scene in self.scenes.values():
            if "floor" in scene.facts:
                pair = (scene.facts["floor"], scene.facts["floor_after_line"])
                found.setdefault(scene.protocol, []).append(pair)
        return {
            protocol: {
                "n": len(pairs),
                "raw": float(np.mean([raw for raw, _ in pairs])),
                "line": float(np.mean([line for _, line in pairs])),
            }
            for protocol, pairs in found.items()
        }

    def without_weights(self) -> list[str]:
        """Return the models that never ran for want of their weights."""
        rows = self.skipped
        lacking = set(rows.loc[rows["reason"].str.startswith(NO_WEIGHTS), "model"])
        return [m for m in self.methods if m in lacking and m not in set(self.scores["model"])]


def read_findings(
    *, scenes: Sequence[Path], metrics: Path, skipped: Path, manifest: Path, statistics: Path
) -> Findings:
    """Read the results that the report is made from.

    Args:
        scenes: the ``scene.json`` of every scene.
        metrics: ``metrics.csv``.
        skipped: ``skipped.csv``.
        manifest: ``manifest.json``.
        statistics: folder with the tables of :data:`unveil.metrics.tables.TABLES`.

    Raises:
        InputError: if a file is missing or lacks a column, or names an unknown model.
    """
    loaded = {scene.id: scene for scene in map(load_scene, scenes)}
    again = "delete it and run the workflow again"
    document = read_json(manifest, kind="a manifest", remedy=again)
    with reading_input(manifest, "a manifest", remedy=again):
        methods = read_methods(document.get("models", {}))
    rows = read_scores(metrics)
    remedy = "delete it and run the workflow again"
    skips = read_table(skipped, dict.fromkeys(SKIPPED_COLUMNS, str), remedy=remedy)
    _refuse_unknown(rows["model"].unique(), methods, manifest)
    rows = rows[rows["band"] == "all"]
    papers = rows["region"].str.startswith(PAPERS)
    scores, by_paper = _as_text(rows[~papers]), _as_text(rows[papers])
    by_paper["region"] = by_paper["region"].str.removeprefix(PAPERS)
    known = scores.drop_duplicates("scene").set_index("scene")["cloud_cover"].to_dict()
    cover = {
        scene_id: known[scene_id] if scene_id in known else frame_cover(scene.target)
        for scene_id, scene in loaded.items()
    }
    found = Statistics(**read_statistics(statistics))
    return Findings(loaded, methods, scores, by_paper, skips, cover, document, found)


def read_citations(path: Path) -> dict[str, str]:
    """Return the BibTeX entries of a file by key.

    Raises:
        InputError: if the file is missing.
    """
    with reading_input(path, "BibTeX", remedy="restore it from the repository"):
        text = Path(path).read_text(encoding="utf-8")
    entries = re.findall(r"^(@\w+\{([^,\s]+),.*?^\})", text, flags=re.MULTILINE | re.DOTALL)
    return {key: entry for entry, key in entries}


def read_methods(models: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """Return the models of a manifest; weights trained in the project always say so."""
    methods = {}
    for model_id, entry in models.items():
        title = str(entry.get("title") or model_id)
        origin = str(entry.get("origin") or "none")
        if origin == "trained-here" and "trained here" not in title.lower():
            title = f"{title} (trained here)"
        methods[model_id] = Method(
            id=model_id,
            title=title,
            kind=str(entry.get("kind") or ""),
            origin=origin,
            citation=str(entry.get("citation") or ""),
            weights=str(entry.get("weights") or ""),
            sha256=str(entry.get("weights_sha256") or ""),
            parameters=entry.get("parameters"),
            series=entry.get("series"),
        )
    return methods


def frame_cover(frame: Frame) -> float:
    """Return the share of valid pixels under cloud or shadow; NaN when nothing is known."""
    if frame.facts.get("eo:cloud_cover") is not None:
        shadow = float(frame.facts.get("unveil:shadow_cover") or 0)
        return (float(frame.facts["eo:cloud_cover"]) + shadow) / 100
    if frame.mask is None or not frame.mask.exists():
        return float("nan")
    with raster.open_raster(frame.mask) as dataset:
        shape = tuple(min(MASK_PREVIEW, side) for side in dataset.shape)
        classes = dataset.read(1, out_shape=shape)
    return cloud_cover(classes) if (classes != NODATA).any() else float("nan")


def pick_scenes(cover: Mapping[str, float], n: int) -> list[str]:
    """Return at most ``n`` scenes, evenly spread over the ranking by cloud cover, clear first."""
    ranked = sorted(cover, key=lambda s: (np.isnan(cover[s]), cover[s], s))
    if len(ranked) <= n:
        return ranked
    return [ranked[i] for i in np.unique(np.linspace(0, len(ranked) - 1, n).round().astype(int))]


def _as_text(rows: pd.DataFrame) -> pd.DataFrame:
    """Turn categories into plain text, but those that rows are chosen by again and again."""
    names = rows.select_dtypes("category").columns.difference(CHOSEN_BY)
    return rows.astype(dict.fromkeys(names, object)).reset_index(drop=True)


def _refuse_unknown(models: Iterable[str], methods: Mapping[str, Method], path: Path) -> None:
    unknown = sorted(set(models) - set(methods))
    if unknown:
        raise InputError(
            f"does not describe {', '.join(unknown)}, which has metrics",
            file=path,
            field="models",
            remedy="run the workflow again, so that metrics and manifest are of one run",
        )


def scene_scores(findings: Findings, *, region: str, metric: str) -> pd.DataFrame:
    """Return one metric over bands as scenes x models."""
    scores = findings.scores
    rows = scores[(scores["region"] == region) & (scores["metric"] == metric)]
    rows = rows.dropna(subset=["value"])
    return scenes_by_models(rows, [m for m in findings.methods if m in set(rows["model"])])


def errors_on_most_bands(findings: Findings) -> pd.DataFrame:
    """Return the MAE of hidden pixels, of methods that give the most bands of a scene alone."""
    errors = scene_scores(findings, region="occluded", metric="MAE")
    counted = findings.scores[findings.scores["metric"] == "n_bands"].dropna(subset=["value"])
    bands = scenes_by_models(counted, list(errors.columns)).reindex(errors.index)
    methods = [model for model in errors if not findings.methods[model].is_baseline]
    return errors.where(~bands.lt(bands[methods].max(axis=1), axis=0))


def scenes_by_models(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Return the values of one metric as scenes x models."""
    first = rows.drop_duplicates(["scene", "model"])
    wide = first.pivot(index="scene", columns="model", values="value")
    return wide.reindex(columns=list(models))


def select(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    """Return the rows of a table that have these values in these columns."""
    return table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]
