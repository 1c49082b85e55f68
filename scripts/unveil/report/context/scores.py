"""Tables of pooled scores, and the lowest errors within strata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from unveil.metrics.levels import ALL, level_names
from unveil.metrics.registry import METRICS, in_print_order, print_value
from unveil.protocols import PROTOCOLS
from unveil.report.findings import Findings, ReportOptions
from unveil.report.order import best_first, order_by
from unveil.report.words import percent, region_name

ALL_LEVELS = "all levels"
REGION_ORDER = (
    *("occluded", "rim", "far", "all", "clear", "clear_kept", "never_seen", "shadow", "haze"),
)
SIDES = {
    "low": "lower is better",
    "high": "higher is better",
    "zero": "nearer to 0 is better",
    "none": "",
}
STRATA = {
    "days_to_clear_look": ("days to a clear look", "scenes, by the median of hidden pixels"),
    "never_seen_fraction": (
        "hidden pixels without a clear look",
        "scenes, by the share of hidden pixels that no frame shows clear",
    ),
    "season": ("season", "scenes, by the date of the target and the hemisphere"),
    "land_cover": ("land cover", "hidden pixels, by class; each model on its own bands"),
}
"""What else the errors are sorted by: title, and what is sorted."""


@dataclass(frozen=True)
class Cell:
    """One pooled value.

    Attributes:
        value: pooled over places; NaN without any.
        text: the value as printed.
        n_scenes: scenes in it.
        n_places: places in it.
        ranked: True when it stands on the common scenes and may be compared.
        rank: 1 for the lowest printed number or its like, 2 for the next one; 0 otherwise.
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
        n_common: scenes that every ranked model has.
        n_places: places of these.
        ranked: ids of the models compared on them.
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


def make_tables(findings: Findings, bounds: Sequence[float]) -> list[Table]:
    """Return the pooled scores over bands, one table per protocol and region, occluded first."""
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
    columns: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows.itertuples(index=False):
        columns.setdefault((row.metric, row.level), {})[row.model] = row
    stands, cells = {}, {}
    for metric in metrics:
        for position, level in enumerate(levels):
            inside = columns.get((metric, level), {})
            stands[metric, position] = _stand(inside, labels[position])
            numbers = _printed_in_order(inside, metric)
            for model in models:
                cells[metric, model, position] = _cell(inside.get(model), metric, numbers)
    return Table(protocol, region, labels, metrics, models, stands, cells)


def _stand(rows: Mapping[str, Any], label: str) -> Stand:
    ranked = {model: row for model, row in rows.items() if row.ranked == 1}
    return Stand(
        label,
        int(max((row.stratum_scenes for row in rows.values()), default=0)),
        int(max((row.n_scenes for row in ranked.values()), default=0)),
        int(max((row.n_places for row in ranked.values()), default=0)),
        tuple(ranked),
    )


def _cell(row: Any, metric: str, numbers: Sequence[str]) -> Cell:
    """Return a cell of a row of pooled values, None for a model without one.

    Args:
        row: the row.
        metric: the metric.
        numbers: of the ranked models as printed, the best first: the first two are marked.
    """
    if row is None:
        return Cell(math.nan, print_value(math.nan, metric), 0, 0, ranked=False, rank=0)
    text = print_value(row.value, metric)
    marked = row.rank == row.rank and text in numbers[:2]
    return Cell(
        value=float(row.value),
        text=text,
        n_scenes=int(row.n_scenes),
        n_places=int(row.n_places),
        ranked=bool(row.ranked),
        rank=numbers.index(text) + 1 if marked else 0,
    )


def _printed_in_order(rows: Mapping[str, Any], metric: str) -> list[str]:
    """Return the numbers of ranked models as printed, the best first, each once.

    Nothing for a single ranked model, which is better than none.
    """
    ranked = sorted((r for r in rows.values() if not pd.isna(r.rank)), key=lambda r: r.rank)
    if len(ranked) < 2:
        return []
    return list(dict.fromkeys(print_value(row.value, metric) for row in ranked))


def tables_context(findings: Findings, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the tables as plain data, for the template and for the page's script."""
    regions = list(dict.fromkeys(table.region for table in tables))
    metrics = list(dict.fromkeys(metric for table in tables for metric in table.metrics))
    return {
        "protocols": list(dict.fromkeys(table.protocol for table in tables)),
        "regions": regions,
        "region_names": {region: region_name(region) for region in regions},
        "metrics": metrics,
        "units": {metric: METRICS[metric].printed_unit for metric in metrics},
        "heads": {metric: METRICS[metric].head for metric in metrics},
        "notes": {metric: SIDES[METRICS[metric].better] for metric in metrics},
        "directions": {metric: METRICS[metric].better for metric in metrics},
        "levels": list(tables[0].labels) if tables else [],
        "titles": {m.id: m.title for m in findings.methods.values()},
        "blocks": {table.protocol + "|" + table.region: _table_data(table) for table in tables},
    }


def _table_data(table: Table) -> dict[str, Any]:
    """Return a table: ``cells[metric][model][level]``, and ``stands[metric][level]``."""
    levels = range(len(table.labels))
    return {
        "models": list(table.models),
        "cells": {
            metric: [
                [_cell_data(table.cells[metric, model, i]) for i in levels]
                for model in table.models
            ]
            for metric in table.metrics
        },
        "stands": {
            metric: [_stand_data(table.stands[metric, i]) for i in levels]
            for metric in table.metrics
        },
    }


def _stand_data(stand: Stand) -> dict[str, Any]:
    return {
        "label": stand.label,
        "scenes": stand.n_common,
        "of": stand.n_scenes,
        "places": stand.n_places,
    }


def _cell_data(cell: Any) -> dict[str, Any]:
    finite = math.isfinite(cell.value)
    return {
        "v": float(f"{cell.value:.6g}") if finite else None,
        "t": cell.text,
        "n": cell.n_scenes,
        "p": cell.n_places,
        "r": cell.rank,
        "c": int(cell.ranked),
    }


def pooled_scores(tables: Mapping[str, Any]) -> pd.DataFrame:
    """Return every pooled value as a long table."""
    rows = []
    for key, block in tables["blocks"].items():
        protocol, region = key.split("|")
        for metric, by_model in block["cells"].items():
            for model, cells in zip(block["models"], by_model, strict=True):
                for stand, cell in zip(block["stands"][metric], cells, strict=True):
                    rows.append(
                        {
                            "protocol": protocol,
                            "region": region,
                            "cloud_level": stand["label"],
                            "metric": metric,
                            "unit": tables["units"][metric],
                            "model": model,
                            "title": tables["titles"][model],
                            "value": cell["v"],
                            "n_scenes": cell["n"],
                            "n_places": cell["p"],
                            "compared_on_common_scenes": bool(cell["c"]),
                        }
                    )
    return pd.DataFrame(rows)


def strata_context(findings: Findings, options: ReportOptions) -> list[dict[str, Any]]:
    """Return the lowest error and the next within each stratum of each kind."""
    table = findings.statistics.strata
    table = table[table["mean_rank"].notna()]
    found = []
    for key, (title, what) in STRATA.items():
        rows = table[table["by"] == key]
        for _, part in rows.groupby(["protocol", "level"], sort=True):
            entry = _stratum(findings, part, options)
            found += [{"by": title, "what": what, **entry}] if entry else []
    return found


def stratum_name(fact: str, level: str) -> str:
    """Return the printed name of a stratum, such as "up to 15 days" for "2: to 15"."""
    name = level.partition(": ")[2] or level.replace("_", " ")
    words, _, edge = name.rpartition(" ")
    if words not in ("to", "above"):
        return name
    if fact == "days_to_clear_look":
        amount = f"{edge} days"
    else:
        amount = percent(float(edge))
    if float(edge) == 0:
        return "none"
    return f"{'up to' if words == 'to' else 'more than'} {amount}"


def _stratum(
    findings: Findings, rows: pd.DataFrame, options: ReportOptions
) -> dict[str, Any] | None:
    rows = rows[~rows["model"].map(lambda m: findings.methods[m].is_baseline)].sort_values("mean")
    if rows.empty:
        return None
    best = rows.iloc[0]
    weights = rows["model"].map(lambda m: findings.methods[m].sha256)
    # Variants of one network are no rivals: under cloud they often give the same.
    rows = rows[(rows["model"] == best["model"]) | (weights != weights.iloc[0]) | (weights == "")]
    following = rows.iloc[1] if len(rows) > 1 else None
    groups = [set(row["cliques"].split()) for _, row in rows.head(2).iterrows()]
    alike = len(groups) > 1 and bool(groups[0] & groups[1])
    if best["n_ranked"] < options.min_places:
        verdict = "too few places"
    else:
        verdict = "not distinguishable" if alike else "apart in rank"
    return {
        "protocol": best["protocol"],
        "level": stratum_name(best["by"], str(best["level"])),
        "best": findings.methods[best["model"]].title,
        "mae": best["mean"],
        "low": best["low"],
        "high": best["high"],
        "next": findings.methods[following["model"]].title if following is not None else "–",
        "next_mae": following["mean"] if following is not None else math.nan,
        "places": int(best["n_places"]),
        "verdict": verdict if following is not None else "the only one",
    }
