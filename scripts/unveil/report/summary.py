"""What the pooled tables say: who is best, on which scenes, and is it a claim.

Nothing is pooled here: every number is read from the tables of the statistics, and so the page
cannot contradict them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from unveil.metrics.levels import ALL, level_names
from unveil.metrics.registry import METRICS, in_print_order, print_value
from unveil.metrics.statistics import BETTER, NOT_RANKED, WORSE
from unveil.report.findings import Findings
from unveil.scene import PROTOCOLS

ALL_LEVELS = "all levels"
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
class Stand:
    """What a column of a table stands on: one metric and one cloud level.

    Attributes:
        label: "0–35 %" ... or "all levels".
        n_scenes: scenes of the level with any value.
        n_common: scenes that every ranked method has.
        n_places: places of these.
        ranked: ids of the methods compared on them.
    """

    label: str
    n_scenes: int
    n_common: int
    n_places: int
    ranked: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """Pooled scores of one protocol and region.

    Attributes:
        protocol: where the truth comes from.
        region: which pixels.
        labels: of the cloud levels, then of all levels.
        metrics: names, in print order.
        models: ids, those with the least error under cloud first.
        stands: ``(metric, level position)`` -> what the column stands on.
        cells: ``(metric, model, level position)`` -> cell.
    """

    protocol: str
    region: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    models: tuple[str, ...]
    stands: dict[tuple[str, int], Stand]
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
        verdict: of the best one: ``better``, ``worse``, ``not distinguishable``, ``too few
            places``, or ``not ranked`` when the method lacks too many scenes.
        n_places: places that both have.
        n_scenes: scenes that both have.
        mean: the method's error on these.
        best_mean: the best one's error on these.
    """

    model: str
    difference: float
    low: float
    high: float
    p_holm: float
    win_rate: float
    verdict: str
    n_places: int
    n_scenes: int
    mean: float
    best_mean: float


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
        difference: the runner-up against the best; None without a runner-up.
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


def make_tables(findings: Findings, bounds: Sequence[float]) -> list[Table]:
    """Return the pooled scores over bands, one table a protocol and region, occluded first."""
    pooled = findings.statistics.pooled
    shown = [name for name, metric in METRICS.items() if metric.use == "score"]
    pooled = pooled[(pooled["band"] == "all") & pooled["metric"].isin(shown)]
    tables = []
    for protocol in order_by(pooled["protocol"].unique(), PROTOCOLS):
        rows = pooled[pooled["protocol"] == protocol]
        for region in order_by(rows["region"].unique(), REGION_ORDER):
            tables.append(_make_table(findings, rows[rows["region"] == region], bounds))
    return tables


def _make_table(findings: Findings, rows: pd.DataFrame, bounds: Sequence[float]) -> Table:
    protocol, region = rows["protocol"].iloc[0], rows["region"].iloc[0]
    present = set(rows["model"])
    models = tuple(model for model in best_first(findings, protocol) if model in present)
    metrics = tuple(in_print_order(rows["metric"]))
    levels = [*level_names(bounds), ALL]
    labels = tuple(ALL_LEVELS if level == ALL else level for level in levels)
    columns = {key: inside.set_index("model") for key, inside in rows.groupby(["metric", "level"])}
    stands, cells = {}, {}
    for metric in metrics:
        for position, level in enumerate(levels):
            inside = columns.get((metric, level), rows[:0].set_index("model"))
            stands[metric, position] = _stand(inside, labels[position])
            for model in models:
                cells[metric, model, position] = _cell(inside, model, metric)
    return Table(protocol, region, labels, metrics, models, stands, cells)


def _stand(rows: pd.DataFrame, label: str) -> Stand:
    ranked = rows[rows["ranked"] == 1]
    n_common, n_places = (ranked[name].max() for name in ("n_scenes", "n_places"))
    counts = (0 if ranked.empty else int(n) for n in (n_common, n_places))
    return Stand(
        label,
        int(rows["stratum_scenes"].max() or 0) if len(rows) else 0,
        *counts,
        tuple(ranked.index),
    )


def _cell(rows: pd.DataFrame, model: str, metric: str) -> Cell:
    """Return a cell; the first two of at least two ranked methods are marked."""
    if model not in rows.index:
        return Cell(math.nan, print_value(math.nan, metric), 0, 0, ranked=False, rank=0)
    row = rows.loc[model]
    marked = row["rank"] <= 2 and rows["rank"].count() > 1
    return Cell(
        value=float(row["value"]),
        text=print_value(row["value"], metric),
        n_scenes=int(row["n_scenes"]),
        n_places=int(row["n_places"]),
        ranked=bool(row["ranked"]),
        rank=int(row["rank"]) if marked else 0,
    )


def pooled_errors(findings: Findings, *, protocol: str, level: str = ALL) -> pd.DataFrame:
    """Return the pooled occluded MAE over bands of one protocol and level, a row a model."""
    pooled = findings.statistics.pooled
    wanted = {"protocol": protocol, "level": level, "region": "occluded", "band": "all"}
    return _select(pooled, metric="MAE", **wanted).set_index("model")


def best_first(findings: Findings, protocol: str = "") -> list[str]:
    """Return the methods in the order of their error under cloud, best first.

    The order is that of ``protocol``, then of the protocol that compares most methods, and so
    on for those that have no score there. Methods without any score come last; the cloudy
    input itself comes first of all, because it is what the others start from.
    """
    wanted = {"level": ALL, "region": "occluded", "band": "all", "metric": "MAE"}
    rows = _select(findings.statistics.pooled, **wanted).dropna(subset=["value"])
    means = rows.set_index(["protocol", "model"])["value"]
    sizes = means.groupby(level="protocol").size()
    names = sorted(sizes.index, key=lambda name: (name != protocol, -sizes[name]))
    order = [model for name in names for model in means[name].sort_values(kind="stable").index]
    place = {model: number for number, model in enumerate(dict.fromkeys(order))}
    return sorted(
        findings.methods,
        key=lambda m: (not findings.methods[m].is_baseline, place.get(m, len(place))),
    )


def best_of_each(findings: Findings) -> list[str]:
    """Return the methods so that the best of every protocol come first, then the seconds ...

    The cloudy input itself is not among them.
    """
    rows = findings.scores
    found: list[str] = []
    orders = []
    for protocol in order_by(rows["protocol"].unique(), PROTOCOLS):
        scored = set(rows.loc[rows["protocol"] == protocol, "model"])
        orders.append([m for m in best_first(findings, protocol) if m in scored])
    for place in range(len(findings.methods)):
        found += [order[place] for order in orders if place < len(order)]
    return [m for m in dict.fromkeys(found) if not findings.methods[m].is_baseline]


def _scene_by_model(rows: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    first = rows.drop_duplicates(["scene", "model"])
    wide = first.pivot(index="scene", columns="model", values="value")
    return wide.reindex(columns=list(models))


def answer(findings: Findings, table: Table, *, min_places: int) -> list[Verdict]:
    """Return the verdict of each cloud level of a table, on occluded MAE; all levels last."""
    verdicts = []
    for label in table.labels:
        level = ALL if label == ALL_LEVELS else label
        errors = pooled_errors(findings, protocol=table.protocol, level=level)
        errors = errors[(errors["ranked"] == 1) & errors["value"].notna()]
        if len(errors):
            verdict = replace(_judge(findings, errors), label=label)
            verdicts.append(_claim(findings, verdict, table.protocol, level, min_places))
    return verdicts


def _select(table: pd.DataFrame, **wanted: str) -> pd.DataFrame:
    return table[np.logical_and.reduce([table[key] == value for key, value in wanted.items()])]


def _judge(findings: Findings, errors: pd.DataFrame) -> Verdict:
    best, *others = errors["rank"].sort_values().index
    mae = errors["value"].to_dict()
    baseline = [model for model in mae if findings.methods[model].is_baseline]
    # Variants of one network are no rivals: under cloud they often give the same.
    shared = findings.methods[best].sha256
    rivals = [m for m in others if not shared or findings.methods[m].sha256 != shared]
    runner = rivals[0] if rivals else ""
    return Verdict(
        label="",
        best=best,
        best_mae=mae[best],
        runner_up=runner,
        runner_up_mae=mae.get(runner, math.nan),
        cloudy_mae=mae[baseline[0]] if baseline else math.nan,
        difference=None,
        claim="description",
        n_scenes=int(errors.loc[best, "n_scenes"]),
        n_places=int(errors.loc[best, "n_places"]),
        shared_bands=tuple(errors.loc[best, "shared_bands"].split()),
    )


def _claim(
    findings: Findings, verdict: Verdict, protocol: str, level: str, min_places: int
) -> Verdict:
    """Call the best better only if its interval and the corrected test both say so."""
    pairs = against(findings, verdict.best, protocol=protocol, level=level)
    tested = next((pair for pair in pairs if pair.model == verdict.runner_up), None)
    needed = max(min_places, places_needed(count_pairs(findings, protocol, level)))
    if tested is None or tested.n_places < needed:
        return replace(verdict, difference=tested)
    sure = tested.verdict == BETTER and tested.low > 0
    return replace(verdict, difference=tested, claim="better" if sure else "indistinguishable")


def places_needed(n_pairs: int) -> int:
    """Return from how many places on a corrected Wilcoxon test can reach 5 % at all.

    The least two-sided probability of n places is 2 / 2**n, and Holm multiplies the least
    one of a family by the number of pairs.
    """
    return math.ceil(1 + math.log2(max(n_pairs, 1) / 0.05))


def count_pairs(findings: Findings, protocol: str, level: str = ALL) -> int:
    """Return the size of the family of comparisons by occluded MAE."""
    return int((_compared(findings, protocol, level)["verdict"] != NOT_RANKED).sum())


def _compared(findings: Findings, protocol: str, level: str) -> pd.DataFrame:
    wanted = {"protocol": protocol, "level": level, "region": "occluded", "metric": "MAE"}
    return _select(findings.statistics.comparison, **wanted)


def against(findings: Findings, best: str, *, protocol: str, level: str = ALL) -> list[Paired]:
    """Return every method against ``best`` by occluded MAE, the nearest to it first."""
    rows = _compared(findings, protocol, level)
    rows = rows[(rows["first"] == best) | (rows["second"] == best)]
    pairs = [_orient(row, best) for row in rows.itertuples()]
    return sorted(pairs, key=lambda pair: pair.difference)


def _orient(row: Any, best: str) -> Paired:
    """Turn a row of the comparison round, so that it reads from the best one's side."""
    counts = row.n_places, row.n_scenes
    if row.first != best:
        flipped = {BETTER: WORSE, WORSE: BETTER}.get(row.verdict, row.verdict)
        limits = (row.difference, row.low, row.high)
        means = row.first_mean, row.second_mean
        return Paired(row.first, *limits, row.p_holm, 1 - row.win_rate, flipped, *counts, *means)
    limits = (-row.difference, -row.high, -row.low)
    means = row.second_mean, row.first_mean
    return Paired(row.second, *limits, row.p_holm, row.win_rate, row.verdict, *counts, *means)


def order_by(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return ``names`` in a given order, unknown ones last and alphabetical."""
    known = list(order)
    return sorted(names, key=lambda n: (known.index(n) if n in known else len(known), n))


def scene_scores(findings: Findings, *, region: str, metric: str) -> pd.DataFrame:
    """Return one metric over bands as scenes x models."""
    scores = findings.scores
    rows = scores[(scores["region"] == region) & (scores["metric"] == metric)]
    rows = rows.dropna(subset=["value"])
    return _scene_by_model(rows, [m for m in findings.methods if m in set(rows["model"])])


def caveats(findings: Findings, table: Table) -> dict[str, list[str]]:
    """Return what makes the errors of a method less comparable: title -> sentences."""
    last = len(table.labels) - 1
    scores = findings.scores[findings.scores["protocol"] == table.protocol]
    counted = scores[scores["metric"] == "n_bands"].dropna(subset=["value"])
    bands = _scene_by_model(counted, table.models)
    fewer = bands.lt(bands.max(axis=1), axis=0).sum()
    notes: dict[str, list[str]] = {}
    for model in table.models:
        title = findings.methods[model].title
        answered = table.cells.get(("answered", model, last))
        if answered and answered.value < FULL_ANSWER:
            share = f"{100 * answered.value:.0f} %"
            text = f"answers {share} of these pixels; the rest is not in its error"
            notes.setdefault(title, []).append(text)
        if fewer[model]:
            most = int(bands.loc[bands[model] < bands.max(axis=1), model].max())
            text = (
                f"gives fewer bands than others on {fewer[model]} scenes (at most {most}): "
                "MAE compares shared bands, other metrics each one's own"
            )
            notes.setdefault(title, []).append(text)
    return notes
