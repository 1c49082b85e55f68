"""Pooling and comparison of scores: who is best, on which scenes, and is it a claim.

Pooling is per scene, then the mean of the scenes of a place, then the mean over places.
Methods are compared on the scenes that all of them have: a method that skipped the hard
scenes must not look better for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from unveil.bands import BANDS
from unveil.protocols import PROTOCOLS
from unveil.report.evidence import Evidence

MIN_SHARE = 0.8
"""A method is ranked when it keeps at least this share of the scenes comparable."""

ALL_LEVELS = "all levels"

LOWER_IS_BETTER = {"MAE", "RMSE", "SAM", "NLL", "UCE", "AUCE", "NDVI_MAE", "NDWI_MAE"}
LOWER_IS_BETTER |= {f"MAE_KEEP_{kept}" for kept in (90, 75, 50, 25)}
NEARER_TO_ZERO_IS_BETTER = {"BIAS", "SEAM"}
HIGHER_IS_BETTER = {"PSNR", "SSIM", "R2", "GRADIENT_CORRELATION", "ANSWERED"}
DECIMALS = {
    "MAE": 4,
    "RMSE": 4,
    "BIAS": 4,
    "NDVI_MAE": 4,
    "NDWI_MAE": 4,
    "SEAM": 4,
    "PSNR": 2,
    "SAM": 2,
    "SSIM": 3,
    "R2": 3,
}
METRIC_ORDER = ("MAE", "RMSE", "PSNR", "SSIM", "SAM", "bias", "R2", "gradient_correlation")
SCENE_FACTS = ("never_seen_fraction", "days_to_clear_look", "n_bands")
"""Rows of the metrics table that describe a scene or a comparison, not a method's quality."""

FULL_ANSWER = 0.99
REGION_ORDER = ("occluded", "all", "clear", "clear_kept", "never_seen", "shadow", "haze")


@dataclass(frozen=True)
class Cell:
    """One pooled value.

    Attributes:
        value: pooled over places; NaN without any.
        text: the value as printed.
        n_scenes: scenes in it.
        n_places: places in it.
        ranked: True when it stands on the common scenes and may be compared.
        rank: 1 for the best, 2 for the second; 0 otherwise.
    """

    value: float
    text: str
    n_scenes: int
    n_places: int
    ranked: bool
    rank: int


@dataclass(frozen=True)
class Stratum:
    """The scenes of one protocol, region and cloud level, as far as they compare.

    Attributes:
        label: "0–35 %" ... or "all levels".
        n_scenes: scenes of the stratum with any score.
        common: scenes that every ranked method has.
        ranked: ids of the methods compared on them.
    """

    label: str
    n_scenes: int
    common: tuple[str, ...]
    ranked: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Pooled scores of one protocol and region.

    Attributes:
        protocol: where the truth comes from.
        region: which pixels.
        strata: the cloud levels, then all levels.
        metrics: names, in print order.
        units: metric -> unit.
        models: ids, those with the least error under cloud first.
        cells: ``(metric, model, stratum position)`` -> cell.
    """

    protocol: str
    region: str
    strata: tuple[Stratum, ...]
    metrics: tuple[str, ...]
    units: dict[str, str]
    models: tuple[str, ...]
    cells: dict[tuple[str, str, int], Cell]


@dataclass(frozen=True)
class Paired:
    """A method against the best, paired by place (the table ``comparison.csv``).

    Attributes:
        model: id of the method.
        difference: its error minus the best one's, in the unit of the metric.
        low: lower end of the 95 % interval over places; NaN for one place.
        high: upper end.
        p_holm: Wilcoxon probability after Holm's correction; NaN when all are ties.
        win_rate: share of places where the best one is better, ties counting half.
        verdict: of the best one: ``better``, ``worse``, ``not distinguishable`` or
            ``too few places``.
        n_places: places that both have.
    """

    model: str
    difference: float
    low: float
    high: float
    p_holm: float
    win_rate: float
    verdict: str
    n_places: int


@dataclass(frozen=True)
class Verdict:
    """The answer for one protocol and cloud level, on occluded MAE.

    Attributes:
        label: the cloud level.
        best: id of the method with the lowest error; empty when nothing was ranked.
        best_mae: its error, reflectance.
        runner_up: id of the next; empty when there is none.
        runner_up_mae: its error.
        cloudy_mae: error of the cloudy input itself; NaN when it did not run.
        difference: the runner-up against the best, over the places that both have; None
            without a runner-up.
        claim: ``better``, ``indistinguishable`` or ``description`` (too few places).
        n_scenes: scenes compared.
        n_places: places compared.
        shared_bands: bands compared where methods were scored on different ones.
    """

    label: str
    best: str
    best_mae: float
    runner_up: str
    runner_up_mae: float
    cloudy_mae: float
    difference: Paired | None
    claim: str
    n_scenes: int
    n_places: int
    shared_bands: tuple[str, ...] = ()


def level_labels(bounds: Sequence[float]) -> list[str]:
    """Return the printed names of the cloud levels between ``bounds`` (fractions)."""
    percent = [f"{100 * bound:g}" for bound in (0, *bounds, 1)]
    return [f"{a}–{b} %" for a, b in pairwise(percent)]


def level_of(cover: pd.Series, bounds: Sequence[float]) -> pd.Series:
    """Return the position of each cover's level; a bound belongs to the level above it."""
    return pd.Series(np.searchsorted(np.asarray(bounds), cover, side="right"), index=cover.index)


def pool(values: pd.DataFrame, places: pd.Series) -> pd.DataFrame:
    """Pool one value a scene: mean of the scenes of a place, then mean of the places.

    Args:
        values: scenes x models, NaN where there is none.
        places: scene -> place.

    Returns:
        A row a model: ``value`` (NaN without any), ``n_scenes``, ``n_places``.
    """
    by_place = values.groupby(places.reindex(values.index)).mean()
    counts = {"n_scenes": values.count(), "n_places": by_place.count()}
    return pd.DataFrame({"value": by_place.mean(), **counts})


def comparable(present: pd.DataFrame, baselines: Sequence[str]) -> tuple[list[str], list[str]]:
    """Find the scenes and methods that can be compared fairly.

    Methods enter from the one with most scenes down, as long as the scenes common to all
    of them stay at least ``MIN_SHARE`` of what the best-covered method (baselines aside)
    has; the others are shown, but not ranked.

    Args:
        present: scenes x models, True where there is a score.
        baselines: models that run everywhere and so say nothing about coverage.

    Returns:
        The common scenes and the models ranked on them.
    """
    counts = present.sum()
    methods = [m for m in present.columns if m not in baselines and counts[m]]
    order = sorted(methods, key=lambda m: -counts[m])  # stable: ties in manifest order
    order += [m for m in baselines if m in present and counts[m]]
    if not order:
        return [], []
    wanted = MIN_SHARE * counts[order[0]]
    common, ranked = present[order[0]], []
    for model in order:
        together = common & present[model]
        if together.sum() >= wanted:
            common, ranked = together, [*ranked, model]
    return list(present.index[common]), ranked


def make_tables(evidence: Evidence, bounds: Sequence[float]) -> list[Table]:
    """Pool the scores over bands, one table a protocol and region, occluded first."""
    hidden = evidence.scores["metric"].isin(SCENE_FACTS)
    hidden |= evidence.scores["metric"].str.startswith("coverage_")  # drawn as a curve
    scores = evidence.scores[~hidden]
    tables = []
    for protocol in order_by(scores["protocol"].unique(), PROTOCOLS):
        rows = scores[scores["protocol"] == protocol]
        for region in order_by(rows["region"].unique(), REGION_ORDER):
            inside = rows[rows["region"] == region].dropna(subset=["value"])
            if len(inside):
                tables.append(_make_table(evidence, inside, bounds))
    return tables


def _make_table(evidence: Evidence, rows: pd.DataFrame, bounds: Sequence[float]) -> Table:
    metrics = order_by(rows["metric"].unique(), METRIC_ORDER)
    present, protocol = set(rows["model"]), str(rows["protocol"].iloc[0])
    models = tuple(model for model in best_first(evidence, protocol) if model in present)
    baselines = [model for model in models if evidence.methods[model].is_baseline]
    by_scene = rows.drop_duplicates("scene").set_index("scene")
    wide = {metric: _scene_by_model(rows[rows["metric"] == metric], models) for metric in metrics}
    # How much was answered is known without any answer: it does not make a score.
    in_manifest = [model for model in evidence.methods if model in present]
    has = _scene_by_model(rows[rows["metric"] != "answered"], in_manifest).notna()
    levels = level_of(by_scene["cloud_cover"].reindex(has.index), bounds)
    labels = [*level_labels(bounds), ALL_LEVELS]
    strata, cells = [], {}
    for position, label in enumerate(labels):
        chosen = has if label == ALL_LEVELS else has[levels == position]
        common, ranked = comparable(chosen, baselines)
        strata.append(Stratum(label, len(chosen), tuple(common), tuple(ranked)))
        for metric, values in wide.items():
            row = _pool_row(values.reindex(chosen.index), by_scene["place"], strata[-1], metric)
            cells |= {(metric, model, position): cell for model, cell in row.items()}
    units = rows.drop_duplicates("metric").set_index("metric")["unit"].astype(str)
    return Table(
        protocol=protocol,
        region=str(rows["region"].iloc[0]),
        strata=tuple(strata),
        metrics=tuple(metrics),
        units={metric: "" if units[metric] == "1" else units[metric] for metric in metrics},
        models=models,
        cells=cells,
    )


def best_first(evidence: Evidence, protocol: str = "") -> list[str]:
    """Return the methods in the order of their error under cloud, best first.

    The order is that of ``protocol``, then of the protocol that compares most methods, and so
    on for those that have no score there. Methods without any score come last; the cloudy
    input itself comes first of all, because it is what the others start from.
    """
    rows = evidence.scores
    rows = rows[(rows["region"] == "occluded") & (rows["metric"] == "MAE")]
    means = rows.dropna(subset=["value"]).groupby(["protocol", "model"])["value"].mean()
    sizes = means.groupby(level="protocol").size()
    names = sorted(sizes.index, key=lambda name: (name != protocol, -sizes[name]))
    order = [model for name in names for model in means[name].sort_values(kind="stable").index]
    place = {model: number for number, model in enumerate(dict.fromkeys(order))}
    return sorted(
        evidence.methods,
        key=lambda m: (not evidence.methods[m].is_baseline, place.get(m, len(place))),
    )


def best_of_each(evidence: Evidence) -> list[str]:
    """Return the methods so that the best of every protocol come first, then the seconds ...

    The cloudy input itself is not among them.
    """
    rows = evidence.scores
    found: list[str] = []
    orders = []
    for protocol in order_by(rows["protocol"].unique(), PROTOCOLS):
        scored = set(rows.loc[rows["protocol"] == protocol, "model"])
        orders.append([m for m in best_first(evidence, protocol) if m in scored])
    for place in range(len(evidence.methods)):
        found += [order[place] for order in orders if place < len(order)]
    return [m for m in dict.fromkeys(found) if not evidence.methods[m].is_baseline]


def _scene_by_model(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    first = rows.drop_duplicates(["scene", "model"])
    wide = first.pivot(index="scene", columns="model", values="value")
    return wide.reindex(columns=list(models))


def _pool_row(
    values: pd.DataFrame, places: pd.Series, stratum: Stratum, metric: str
) -> dict[str, Cell]:
    """Pool one metric of one stratum: ranked methods on the common scenes, others on theirs."""
    own = pool(values, places)
    common = pool(values.reindex(list(stratum.common)), places)
    cells = {}
    for model in values.columns:
        ranked = model in stratum.ranked
        row = (common if ranked else own).loc[model]
        text = format_value(row["value"], metric)
        counts = int(row["n_scenes"]), int(row["n_places"])
        cells[model] = Cell(float(row["value"]), text, *counts, ranked, 0)
    order = rank({m: c.value for m, c in cells.items() if c.ranked and c.n_scenes}, metric)
    for position, model in enumerate(order[:2] if len(order) > 1 else [], 1):
        cells[model] = replace(cells[model], rank=position)
    return cells


def rank(values: Mapping[str, float], metric: str) -> list[str]:
    """Return the names from best to worst; empty when the metric has no better side."""
    name = metric.upper()
    if name in NEARER_TO_ZERO_IS_BETTER:
        return sorted(values, key=lambda m: abs(values[m]))
    if name in LOWER_IS_BETTER:
        return sorted(values, key=lambda m: values[m])
    if name in HIGHER_IS_BETTER:
        return sorted(values, key=lambda m: -values[m])
    return []


def format_value(value: float, metric: str) -> str:
    """Return a value with the decimals of its metric; a dash when there is none."""
    if np.isnan(value):
        return "–"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{DECIMALS.get(metric.upper(), 3)}f}".replace("-", "−")


def answer(evidence: Evidence, table: Table, *, min_places: int) -> list[Verdict]:
    """Return the verdict of each stratum of a table, on the MAE over shared bands."""
    scores = evidence.scores[evidence.scores["protocol"] == table.protocol]
    places = scores.drop_duplicates("scene").set_index("scene")["place"]
    verdicts = []
    for stratum in table.strata:
        values, shared = shared_band_mae(evidence, table, stratum)
        pooled = pool(values, places)
        pooled = pooled[pooled["n_scenes"] > 0]
        if len(pooled):
            verdict = _judge(evidence, pooled)
            verdict = replace(verdict, label=stratum.label, shared_bands=shared)
            verdicts.append(_claim(evidence, table, verdict, min_places))
    return verdicts


def shared_band_mae(
    evidence: Evidence, table: Table, stratum: Stratum
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the MAE of ranked methods on common scenes, like for like.

    Where the methods of a scene were scored on different bands, the mean over the bands
    that all of them have replaces the mean over each one's own.

    Returns:
        Scenes x models; the bands used where they differed (empty where they did not).
    """
    here = {"protocol": table.protocol, "region": table.region, "metric": "MAE"}
    scenes, ranked = list(stratum.common), list(stratum.ranked)
    values = _scene_by_model(_select(evidence.scores, **here), ranked).reindex(scenes)
    rows = _select(evidence.band_scores, **here)
    rows = rows[rows["scene"].isin(scenes) & rows["model"].isin(ranked)]
    rows = rows.drop_duplicates(["scene", "band", "model"])
    bands = rows.pivot(index=["scene", "band"], columns="model", values="value")
    if bands.empty:
        return values, ()
    everyone = bands.notna().all(axis=1)
    mixed = (~everyone).groupby(level="scene").any()
    mixed = mixed.index[mixed]
    shared = bands[everyone & bands.index.get_level_values("scene").isin(mixed)]
    means = shared.groupby(level="scene").mean().reindex(mixed)
    values.loc[mixed, means.columns] = means
    return values, tuple(order_by(set(shared.index.get_level_values("band")), list(BANDS)))


def _select(scores: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    keep = np.logical_and.reduce([scores[column] == value for column, value in wanted.items()])
    return scores[keep].dropna(subset=["value"])


def _judge(evidence: Evidence, pooled: pd.DataFrame) -> Verdict:
    errors = pooled["value"].to_dict()
    best, *others = rank(errors, "MAE")
    baseline = [model for model in errors if evidence.methods[model].is_baseline]
    # Variants of one network are no rivals: under cloud they often give the same.
    shared = evidence.methods[best].sha256
    rivals = [m for m in others if not shared or evidence.methods[m].sha256 != shared]
    runner = rivals[0] if rivals else ""
    return Verdict(
        label="",
        best=best,
        best_mae=errors[best],
        runner_up=runner,
        runner_up_mae=errors.get(runner, float("nan")),
        cloudy_mae=errors[baseline[0]] if baseline else float("nan"),
        difference=None,
        claim="description",
        n_scenes=int(pooled.loc[best, "n_scenes"]),
        n_places=int(pooled.loc[best, "n_places"]),
    )


def _claim(evidence: Evidence, table: Table, verdict: Verdict, min_places: int) -> Verdict:
    """Call the best better only if its interval and the corrected test both say so."""
    level = "all" if verdict.label == ALL_LEVELS else verdict.label
    pairs = against(evidence, verdict.best, protocol=table.protocol, level=level)
    tested = next((pair for pair in pairs if pair.model == verdict.runner_up), None)
    needed = max(min_places, places_needed(count_pairs(evidence, table.protocol, level)))
    if tested is None or tested.n_places < needed:
        return replace(verdict, difference=tested)
    sure = tested.verdict == "better" and tested.low > 0
    return replace(verdict, difference=tested, claim="better" if sure else "indistinguishable")


def places_needed(n_pairs: int) -> int:
    """Return from how many places on a corrected Wilcoxon test can reach 5 % at all.

    The least two-sided probability of n places is 2 / 2**n, and Holm multiplies the least
    one of a family by the number of pairs.
    """
    return math.ceil(1 + math.log2(max(n_pairs, 1) / 0.05))


def count_pairs(evidence: Evidence, protocol: str, level: str = "all") -> int:
    """Return the size of the family of comparisons by occluded MAE."""
    return len(_compared(evidence, protocol=protocol, level=level, metric="MAE"))


def _compared(evidence: Evidence, **wanted: str) -> pd.DataFrame:
    table = evidence.statistics.comparison
    wanted = wanted | {"region": "occluded"}
    return table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]


def against(
    evidence: Evidence, best: str, *, protocol: str, level: str = "all", metric: str = "MAE"
) -> list[Paired]:
    """Return every method against ``best``, the nearest to it first."""
    rows = _compared(evidence, protocol=protocol, level=level, metric=metric)
    rows = rows[(rows["first"] == best) | (rows["second"] == best)]
    pairs = [_orient(row, best) for row in rows.itertuples()]
    return sorted(pairs, key=lambda pair: pair.difference)


def _orient(row: Any, best: str) -> Paired:
    """Turn a row of the comparison round, so that it reads from the best one's side."""
    if row.first != best:
        flipped = {"better": "worse", "worse": "better"}.get(row.verdict, row.verdict)
        limits = (row.difference, row.low, row.high)
        return Paired(row.first, *limits, row.p_holm, 1 - row.win_rate, flipped, row.n_places)
    limits = (-row.difference, -row.high, -row.low)
    return Paired(row.second, *limits, row.p_holm, row.win_rate, row.verdict, row.n_places)


def order_by(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return ``names`` in a given order, unknown ones last and alphabetical."""
    known = list(order)
    return sorted(names, key=lambda n: (known.index(n) if n in known else len(known), n))


def scene_scores(evidence: Evidence, *, region: str, metric: str) -> pd.DataFrame:
    """Return one metric over bands as scenes x models."""
    scores = evidence.scores
    rows = scores[(scores["region"] == region) & (scores["metric"] == metric)]
    rows = rows.dropna(subset=["value"])
    return _scene_by_model(rows, [m for m in evidence.methods if m in set(rows["model"])])


def caveats(evidence: Evidence, table: Table) -> dict[str, list[str]]:
    """Return what makes the errors of a method less comparable: title -> sentences."""
    scores = evidence.scores[evidence.scores["protocol"] == table.protocol]
    answered = scores[(scores["metric"] == "answered") & (scores["region"] == table.region)]
    shares = _scene_by_model(answered.dropna(subset=["value"]), table.models).mean()
    counted = scores[scores["metric"] == "n_bands"].dropna(subset=["value"])
    bands = _scene_by_model(counted, table.models)
    fewer = bands.lt(bands.max(axis=1), axis=0).sum()
    notes: dict[str, list[str]] = {}
    for model in table.models:
        title = evidence.methods[model].title
        if shares[model] < FULL_ANSWER:
            text = (
                f"answers {100 * shares[model]:.0f} % of these pixels; the rest is not in its error"
            )
            notes.setdefault(title, []).append(text)
        if fewer[model]:
            most = int(bands.loc[bands[model] < bands.max(axis=1), model].max())
            text = (
                f"gives fewer bands than others on {fewer[model]} scenes (at most {most}): "
                "the answer compares shared bands, the tables compare each one's own"
            )
            notes.setdefault(title, []).append(text)
    return notes
