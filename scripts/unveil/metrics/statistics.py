"""Which differences between models are more than chance, over places.

The sample is the *place*: its scenes are pooled first (:func:`unveil.metrics.aggregate.per_place`),
because scenes of one place are not independent. A comparison is paired and uses the places
that both models have a value for; ranks need every model at every place, so models that
lack more than half of the places get none, and then places that lack a model do not count.
With fewer than :data:`MIN_PLACES` places no claim is made: a two-sided Wilcoxon test cannot
reach 5 % with five. Metrics whose sign matters (bias, seam) are not to be compared here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

MIN_PLACES = 6
DRAWS = 5_000
ALPHA = 0.05
HIGHER_IS_BETTER = frozenset({"PSNR", "SSIM", "R2", "gradient_correlation", "answered"})
BETTER, WORSE = "better", "worse"
UNDECIDED, TOO_FEW = "not distinguishable", "too few places"


@dataclass(frozen=True)
class Interval:
    """A mean over places with its bootstrap interval; the limits are NaN for one place."""

    mean: float
    low: float
    high: float
    n_places: int


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


def place_table(
    pooled: pd.DataFrame, *, metric: str, region: str = "occluded", level: str = "all"
) -> pd.DataFrame:
    """Values of one metric over bands: places in rows, models in columns.

    NaN where a model has no value at a place (skipped, or no such pixels).

    Args:
        pooled: the table of :func:`unveil.metrics.aggregate.per_place` of one protocol.
        metric: the metric.
        region: the region.
        level: the cloud level or other stratum.
    """
    chosen = pooled[
        (pooled["metric"] == metric)
        & (pooled["region"] == region)
        & (pooled["level"] == level)
        & (pooled["band"] == "all")
    ]
    plain = chosen.astype({"place": str, "model": str})
    return plain.pivot(index="place", columns="model", values="value")


def bootstrap_intervals(values: np.ndarray, *, seed: int, level: float = 0.95) -> list[Interval]:
    """Means over places with percentile bootstrap intervals (Efron 1979).

    Args:
        values: ``(n_places, m)``, one column a quantity; all get the same resamples. NaN
            where a quantity has no value at a place.
        seed: of the resampling; the same seed gives the same intervals.
        level: coverage of the intervals.

    Raises:
        ValueError: if a quantity has no value at any place.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    present = known.sum(axis=0)
    if values.size == 0 or not present.all():
        raise ValueError("no places: nothing to take a mean of")
    n, filled = len(values), np.where(known, values, 0.0)
    rng = np.random.default_rng(seed)
    means = []
    # In portions, so that thousands of places do not need a gigabyte of draws.
    for start in range(0, DRAWS, portion := max(1, 2_000_000 // n)):
        draws = rng.multinomial(n, np.full(n, 1 / n), min(portion, DRAWS - start)) * 1.0
        drawn = draws @ (known * 1.0)  # floats: the product of integers is many times slower
        means.append(np.where(drawn > 0, draws @ filled / np.maximum(drawn, 1), np.nan))
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    low, high = (np.where(present > 1, limit, np.nan) for limit in (low, high))
    centre = filled.sum(axis=0) / present
    return [
        Interval(*map(float, row), int(m))
        for *row, m in zip(centre, low, high, present, strict=True)
    ]


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction (1979) of a family of probabilities; NaN stays NaN."""
    p = np.asarray(p, np.float64)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return adjusted


def compare(
    table: pd.DataFrame, *, metric: str, seed: int, against: str | None = None
) -> list[Comparison]:
    """Compare models pair by pair, each pair over the places that both have a value for.

    Args:
        table: places x models (:func:`place_table`).
        metric: the metric, which tells whether more is better.
        seed: of the bootstrap.
        against: compare every model with this one only; default all pairs.

    Returns:
        One comparison a pair with a place in common, in the order of the columns; a verdict
        other than ``too few places`` needs :data:`MIN_PLACES` places, ``better`` and
        ``worse`` a corrected probability below :data:`ALPHA`.
    """
    models = list(table.columns)
    pairs = [(model, against) for model in models if model != against]
    if against is None:
        pairs = list(combinations(models, 2))
    gaps = {pair: (table[pair[0]] - table[pair[1]]).to_numpy() for pair in pairs}
    gaps = {pair: gap for pair, gap in gaps.items() if np.isfinite(gap).any()}
    if not gaps:
        return []
    intervals = bootstrap_intervals(np.stack(list(gaps.values()), axis=1), seed=seed)
    found = [gap[np.isfinite(gap)] for gap in gaps.values()]
    p = [_wilcoxon(gap) for gap in found]
    sign = 1 if metric in HIGHER_IS_BETTER else -1
    return [
        Comparison(*pair, interval, raw, corrected, _win_rate(gain), _verdict(gain, corrected))
        for pair, interval, raw, corrected, gain in zip(
            gaps, intervals, p, holm(p).tolist(), (sign * gap for gap in found), strict=True
        )
    ]


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
        table: places x models (:func:`place_table`).
        metric: the metric, which tells whether more is better.

    Raises:
        ValueError: if there are no common places or fewer than two models.
    """
    table = table.loc[:, table.notna().mean() >= 0.5].dropna()
    n, k = table.shape
    if n == 0 or k < 2:
        raise ValueError(f"{n} common places and {k} models: nothing to rank")
    values = table.to_numpy() * (-1 if metric in HIGHER_IS_BETTER else 1)
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


def comparison_table(
    pooled: pd.DataFrame, *, metrics: Sequence[str], region: str = "occluded", seed: int
) -> pd.DataFrame:
    """Compare all pairs of models, by protocol, level and metric; one row a pair.

    Holm's family is the pairs of one protocol, level and metric.

    Args:
        pooled: the table of :func:`unveil.metrics.aggregate.per_place`.
        metrics: metrics to compare by.
        region: the region.
        seed: of the bootstrap.

    Returns:
        Columns ``protocol level region metric first second difference low high n_places p
        p_holm win_rate verdict``.
    """
    rows = []
    for head, table in _tables(pooled, metrics, region):
        for found in compare(table, metric=head["metric"], seed=seed):
            interval = found.difference
            rows.append(
                head
                | {"first": found.first, "second": found.second, "difference": interval.mean}
                | {"low": interval.low, "high": interval.high, "n_places": interval.n_places}
                | {"p": found.p, "p_holm": found.p_holm, "win_rate": found.win_rate}
                | {"verdict": found.verdict}
            )
    return pd.DataFrame(rows, columns=_COMPARED)


def ranking_table(
    pooled: pd.DataFrame, *, metrics: Sequence[str], region: str = "occluded", seed: int
) -> pd.DataFrame:
    """Rank the models, by protocol, level and metric; one row a model, best first.

    Args:
        pooled: the table of :func:`unveil.metrics.aggregate.per_place`.
        metrics: metrics to rank by.
        region: the region.
        seed: of the bootstrap.

    Returns:
        Columns ``protocol level region metric model mean low high n_places mean_rank
        n_ranked friedman_p critical_difference cliques``. ``n_places`` have a value of the
        model, ``n_ranked`` of all ranked models; ``cliques`` numbers the groups that a model
        belongs to, separated by spaces, empty when it stands alone. A model that lacks too
        many places has no rank; with too few common ones none has.
    """
    rows = []
    for head, table in _tables(pooled, metrics, region):
        intervals = bootstrap_intervals(table.to_numpy(), seed=seed)
        means = dict(zip(table.columns, intervals, strict=True))
        try:
            found = rank(table, metric=head["metric"])
        except ValueError:
            found = Ranking({}, float("nan"), float("nan"), (), 0)
        for model in [*found.ranks, *(name for name in means if name not in found.ranks)]:
            groups = [str(i) for i, names in enumerate(found.cliques, 1) if model in names]
            x = means[model]
            rows.append(
                head
                | {"model": model, "mean": x.mean, "low": x.low, "high": x.high}
                | {"n_places": x.n_places, "mean_rank": found.ranks.get(model)}
                | {"n_ranked": found.n_places, "friedman_p": found.p}
                | {"critical_difference": found.critical_difference}
                | {"cliques": " ".join(groups)}
            )
    return pd.DataFrame(rows, columns=_RANKED)


_HEAD = ("protocol", "level", "region", "metric")
_COMPARED = (*_HEAD, "first", "second", "difference", "low", "high", "n_places", "p", "p_holm")
_COMPARED += ("win_rate", "verdict")
_RANKED = (*_HEAD, "model", "mean", "low", "high", "n_places", "mean_rank", "n_ranked")
_RANKED += ("friedman_p", "critical_difference", "cliques")


def _tables(
    pooled: pd.DataFrame, metrics: Sequence[str], region: str
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield the place tables that hold at least two models, with what they are about."""
    over_bands = pooled[(pooled["band"] == "all") & (pooled["region"] == region)]
    for protocol, of_protocol in over_bands.groupby("protocol", observed=True):
        for level in of_protocol["level"].cat.remove_unused_categories().cat.categories:
            for metric in metrics:
                head = {"metric": metric, "region": region, "level": level}
                table = place_table(of_protocol, **head)
                if len(table) and table.shape[1] > 1:
                    yield {"protocol": protocol, **head}, table
