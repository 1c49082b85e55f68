"""The answer: who is best, on which scenes, and is it a claim; nothing is pooled here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from unveil.metrics.levels import ALL
from unveil.metrics.tables import BETTER, NOT_RANKED, WORSE
from unveil.report.context.scores import ALL_LEVELS, Table
from unveil.report.findings import Findings, ReportOptions, scenes_by_models, select

FULL_ANSWER = 0.99


@dataclass(frozen=True)
class Paired:
    """A model against the best, paired by place (the table ``comparison.csv``).

    Attributes:
        model: id of the model.
        difference: its error minus the best one's, in the unit of the metric.
        low: lower end of the 95 % interval over places; NaN for one place.
        high: upper end.
        p_holm: Wilcoxon probability after Holm's correction; NaN when all are ties.
        win_rate: share of places where the best one is better, ties counting half.
        verdict: of the best one: ``better``, ``worse``, ``not distinguishable``, ``too few
            places``, or ``not ranked`` when the model lacks too many scenes.
        n_places: places that both have.
        n_scenes: scenes that both have.
        mean: the model's error on these.
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
        best: id of the model with the lowest error; empty when nothing was ranked.
        best_mae: its error, reflectance.
        runner_up: id of the next; empty when there is none.
        runner_up_mae: its error.
        cloudy_mae: error of the cloudy input itself; NaN when it did not run.
        difference: the runner-up against the best; None without a runner-up.
        claim: ``better``, ``indistinguishable`` or ``description`` (too few places).
        n_scenes: scenes compared.
        n_places: places compared.
        shared_bands: bands compared where models were scored on different ones.
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


def answers(
    findings: Findings, tables: Sequence[Table], options: ReportOptions
) -> list[dict[str, Any]]:
    """Return the verdicts of each protocol, real pairs first."""
    found: list[dict[str, Any]] = []
    for table in tables:
        if table.region != "occluded" or "MAE" not in table.metrics:
            continue
        verdicts = answer(findings, table, min_places=options.min_places)
        if verdicts:
            *levels, overall = verdicts
            found.append(
                {
                    "protocol": table.protocol,
                    "levels": levels,
                    "overall": overall,
                    "caveats": caveats(findings, table),
                    "others": outside_ranking(findings, overall, table.protocol),
                }
            )
    return found  # tables come in the order of trust


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


def pooled_errors(findings: Findings, *, protocol: str, level: str = ALL) -> pd.DataFrame:
    """Return the pooled occluded MAE over bands of one protocol and level, one row per model."""
    pooled = findings.statistics.pooled
    wanted = {"protocol": protocol, "level": level, "region": "occluded", "band": "all"}
    return select(pooled, metric="MAE", **wanted).set_index("model")


def _judge(findings: Findings, errors: pd.DataFrame) -> Verdict:
    best, *others = errors["rank"].sort_values().index
    mae = errors["value"].to_dict()
    baseline = [model for model in mae if findings.methods[model].is_baseline]
    # Variants of one network are no rivals: under cloud they often give the same.
    shared = findings.methods[best].sha256
    rivals = [m for m in others if not shared or findings.methods[m].sha256 != shared]
    # That clouds are worse than a method is no news; that they are better is.
    rivals = [m for m in rivals if m not in baseline]
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
    return select(findings.statistics.comparison, **wanted)


def against(findings: Findings, best: str, *, protocol: str, level: str = ALL) -> list[Paired]:
    """Return every model against ``best`` by occluded MAE, the nearest to it first."""
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


def comparisons(
    findings: Findings, found: Sequence[Mapping[str, Any]], options: ReportOptions
) -> list[dict[str, Any]]:
    """Return every model against the best of each protocol, and the places it takes."""
    compared = []
    for entry in found:
        protocol, best = entry["protocol"], entry["overall"].best
        n_pairs = count_pairs(findings, protocol)
        pairs = against(findings, best, protocol=protocol)
        compared.append(
            {
                "protocol": protocol,
                "best": best,
                "pairs": pairs,
                "n_pairs": n_pairs,
                "places": max((p.n_places for p in pairs if p.verdict != NOT_RANKED), default=0),
                "needed": max(options.min_places, places_needed(n_pairs)),
            }
        )
    return [entry for entry in compared if entry["pairs"]]


def outside_ranking(findings: Findings, verdict: Verdict, protocol: str) -> list[dict[str, Any]]:
    """Find models left out for their coverage that beat the best where both have results."""
    pairs = against(findings, verdict.best, protocol=protocol)
    return [
        {
            "model": pair.model,
            "n_scenes": pair.n_scenes,
            "mae": pair.mean,
            "best_mae": pair.best_mean,
        }
        for pair in pairs
        if pair.verdict == NOT_RANKED and pair.mean < pair.best_mean
    ]


def caveats(findings: Findings, table: Table) -> dict[str, list[str]]:
    """Return what makes the errors of a model less comparable: title -> sentences."""
    last = len(table.labels) - 1
    scores = findings.scores[findings.scores["protocol"] == table.protocol]
    counted = scores[scores["metric"] == "n_bands"].dropna(subset=["value"])
    bands = scenes_by_models(counted, table.models)
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
                "MAE compares shared bands, other metrics do not rank it there"
            )
            notes.setdefault(title, []).append(text)
    return notes
