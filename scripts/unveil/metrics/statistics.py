"""Which differences between models are more than chance, over places.

The sample is the *place*: scenes are pooled and put on like terms first, by
:mod:`unveil.metrics.aggregate`, because scenes of one place are not independent. Ranked models
have a value at every place. With fewer than :data:`MIN_PLACES` places no claim is made: a
two-sided Wilcoxon test cannot reach 5 % with five. Metrics whose sign matters (bias, seam) are
not to be compared here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from unveil.metrics.aggregate import Column, over_places, pair
from unveil.metrics.intervals import Interval, error_intervals, place_intervals
from unveil.metrics.registry import METRICS
from unveil.metrics.tables import (
    BETTER,
    COMPARISON,
    KEYS,
    NOT_RANKED,
    RANKING,
    TOO_FEW,
    UNDECIDED,
    WORSE,
)

MIN_PLACES = 6
ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """The first model against the second, paired by place.

    Attributes:
        first: model id.
        second: model id.
        difference: mean of first - second with its interval, in the metric's unit.
        p: two-sided Wilcoxon signed-rank probability; NaN when every place is a tie.
        p_holm: the same after Holm's correction for the whole family of comparisons.
        win_rate: share of places where the first is better, ties counting half.
        verdict: ``better`` or ``worse`` (of the first), ``not distinguishable`` or
            ``too few places``.
    """

    first: str
    second: str
    difference: Interval
    p: float
    p_holm: float
    win_rate: float
    verdict: str


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over places, 1 is best.

    Attributes:
        ranks: model id -> mean rank, best first.
        p: Friedman probability that the models do not differ; NaN for fewer than three.
        critical_difference: mean ranks closer than this are not distinguishable
            (Nemenyi); NaN with too few places.
        cliques: the largest groups of models that are not distinguishable, for the bars of
            a critical-difference diagram.
        n_places: number of places.
    """

    ranks: dict[str, float]
    p: float
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]
    n_places: int


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (1979) of a family of probabilities; NaN stays NaN."""
    raw = np.asarray(p, np.float64)
    known = np.flatnonzero(np.isfinite(raw))
    order = known[np.argsort(raw[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted = np.full(raw.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1)
    return adjusted


def compare(table: pd.DataFrame, *, metric: str, against: str | None = None) -> list[Comparison]:
    """Compare models pair by pair over the places of a table.

    Args:
        table: places x models without gaps (:func:`unveil.metrics.aggregate.over_places`).
        metric: the metric, which tells whether more is better.
        against: compare every model with this one only; default all pairs.

    Returns:
        One comparison per pair, in the order of the columns; a verdict other than ``too few
        places`` needs :data:`MIN_PLACES` places, ``better`` and ``worse`` a corrected
        probability below :data:`ALPHA`.
    """
    models = list(table.columns)
    if against is None:
        pairs = list(combinations(models, 2))
    else:
        pairs = [(model, against) for model in models if model != against]
    gaps = {pair: (table[pair[0]] - table[pair[1]]).to_numpy() for pair in pairs}
    if not gaps or table.empty:
        return []
    intervals = place_intervals(np.stack(list(gaps.values()), axis=1))
    p = [_wilcoxon(gap) for gap in gaps.values()]
    sign = _sign(metric)
    return [
        Comparison(*pair, interval, raw, corrected, _win_rate(gain), _verdict(gain, corrected))
        for pair, interval, raw, corrected, gain in zip(
            gaps, intervals, p, holm(p).tolist(), (sign * gap for gap in gaps.values()), strict=True
        )
    ]


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].better == "high" else -1


def _win_rate(gain: np.ndarray) -> float:
    return float(np.mean(np.where(gain == 0, 0.5, gain > 0)))


def _verdict(gain: np.ndarray, p: float) -> str:
    if gain.size < MIN_PLACES:
        return TOO_FEW
    if not p < ALPHA:
        return UNDECIDED
    # The test is on signed ranks, so the direction is theirs, not the mean's.
    return BETTER if _signed_rank_sum(gain) > 0 else WORSE


def _wilcoxon(gap: np.ndarray) -> float:
    if not gap.any():
        return float("nan")
    return float(stats.wilcoxon(gap).pvalue)


def _signed_rank_sum(gain: np.ndarray) -> float:
    gain = gain[gain != 0]
    return float(np.sum(np.sign(gain) * stats.rankdata(np.abs(gain))))


def rank(table: pd.DataFrame, *, metric: str) -> Ranking:
    """Rank models over places (Demsar 2006: Friedman test, Nemenyi critical difference).

    Args:
        table: places x models without gaps (:func:`unveil.metrics.aggregate.over_places`).
        metric: the metric, which tells whether more is better.

    Raises:
        ValueError: if there are no places or fewer than two models.
    """
    n, k = table.shape
    if n == 0 or k < 2:
        raise ValueError(f"{n} common places and {k} models: nothing to rank")
    values = -_sign(metric) * table.to_numpy()
    means = stats.rankdata(values, axis=1).mean(axis=0)
    order = np.argsort(means, kind="stable")
    ranks = {str(table.columns[i]): float(means[i]) for i in order}
    enough = n >= MIN_PLACES
    differ = enough and k >= 3 and (np.ptp(values, axis=1) > 0).any()
    p = stats.friedmanchisquare(*values.T).pvalue if differ else float("nan")
    difference = critical_difference(models=k, places=n) if enough else float("nan")
    return Ranking(ranks, float(p), difference, _cliques(ranks, difference), n)


def critical_difference(*, models: int, places: int, alpha: float = ALPHA) -> float:
    r"""Nemenyi's critical difference of mean ranks.

    .. math:: q_\alpha \sqrt{k (k + 1) / 6 n}

    with the studentised range over :math:`\sqrt 2` (Demsar 2006, table 5).
    """
    q = stats.studentized_range.ppf(1 - alpha, models, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(models * (models + 1) / (6 * places)))


def _cliques(ranks: dict[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    """Return the largest runs of models within the critical difference, best first."""
    if not np.isfinite(difference):
        return (tuple(ranks),)
    names, values = list(ranks), np.array(list(ranks.values()))
    found, reached = [], 0
    for start, value in enumerate(values):
        end = int(np.searchsorted(values, value + difference, side="left"))
        if end > reached and end - start > 1:
            found.append(tuple(names[start:end]))
        reached = max(reached, end)
    return tuple(found)


def comparison_table(columns: Iterable[Column]) -> pd.DataFrame:
    """Compare all pairs of models, by protocol, level and metric; one row per pair.

    Holm's family is the pairs of ranked models of one column. A pair with a model that is not
    ranked is described on the scenes and bands that these two share, without a test.

    Args:
        columns: what compares (:func:`unveil.metrics.aggregate.pool`).

    Returns:
        The columns :data:`COMPARISON`.
    """
    rows = []
    for column in columns:
        head = _head(column)
        table = over_places(column.common[sorted(column.ranked)], column.places)
        means, n_scenes = table.mean(), len(column.common)
        for found in compare(table, metric=column.metric):
            two = means[found.first], means[found.second]
            rows.append(_compared_row(head, found, two, n_scenes))
        rows += _describe(column, head)
    return pd.DataFrame(rows, columns=list(COMPARISON))


def _describe(column: Column, head: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the pairs of which not both are ranked, each on what the two share."""
    apart = set(column.apart)
    for first, second in combinations(sorted(column.values), 2):
        if not apart & {first, second}:
            continue
        both = pair(column, first, second)
        table = over_places(both, column.places)
        for found in compare(table, metric=column.metric):
            plain = replace(found, p=math.nan, p_holm=math.nan, verdict=NOT_RANKED)
            yield _compared_row(head, plain, table.mean().tolist(), len(both))


def _compared_row(
    head: dict[str, str], found: Comparison, means: Sequence[float], n_scenes: int
) -> dict[str, Any]:
    interval = found.difference
    return (
        head
        | {"first": found.first, "second": found.second, "difference": interval.mean}
        | {"low": interval.low, "high": interval.high, "n_places": interval.n_places}
        | {"p": found.p, "p_holm": found.p_holm, "win_rate": found.win_rate}
        | {"verdict": found.verdict, "n_scenes": n_scenes}
        | {"first_mean": means[0], "second_mean": means[1]}
    )


def ranking_table(columns: Iterable[Column]) -> pd.DataFrame:
    """Rank the models, by protocol, level and metric; one row per model, best first.

    Args:
        columns: what compares (:func:`unveil.metrics.aggregate.pool`); those with a single
            model have no rows.

    Returns:
        The columns :data:`RANKING`. ``n_places`` have a value of the model, ``n_ranked`` of
        all ranked models; ``cliques`` numbers the groups that a model belongs to, separated by
        spaces, empty when it stands alone. A model that is not ranked has a mean over its own
        scenes, and no rank.
    """
    rows = []
    for column in columns:
        common = over_places(column.common, column.places)
        if common.shape[1] + len(column.apart) < 2:
            continue
        means = _intervals(common, column.metric)
        for model in column.apart:  # each by itself: places of one change no draw of another
            own = over_places(column.values[[model]].dropna(), column.places)
            means |= _intervals(own, column.metric)
        try:
            found = rank(common, metric=column.metric)
        except ValueError:
            found = Ranking({}, math.nan, math.nan, (), 0)
        for model in [*found.ranks, *(name for name in means if name not in found.ranks)]:
            rows.append(_ranked_row(_head(column), model, means[model], found))
    return pd.DataFrame(rows, columns=list(RANKING))


def _intervals(table: pd.DataFrame, metric: str) -> dict[str, Interval]:
    if table.empty:
        return {}
    work = error_intervals if METRICS[metric].is_error else place_intervals
    return dict(zip(table, work(table.to_numpy()), strict=True))


def _ranked_row(head: dict[str, str], model: str, mean: Interval, found: Ranking) -> dict[str, Any]:
    groups = [str(i) for i, names in enumerate(found.cliques, 1) if model in names]
    return (
        head
        | {"model": model, "mean": mean.mean, "low": mean.low, "high": mean.high}
        | {"n_places": mean.n_places, "mean_rank": found.ranks.get(model)}
        | {"n_ranked": found.n_places, "friedman_p": found.p}
        | {"critical_difference": found.critical_difference}
        | {"cliques": " ".join(groups)}
    )


def _head(column: Column) -> dict[str, str]:
    return {name: getattr(column, name) for name in KEYS}
