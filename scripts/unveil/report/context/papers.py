"""This run by the definitions of the papers, beside the figures that they print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from unveil.metrics.registry import IN_PAPERS
from unveil.protocols import PROTOCOLS
from unveil.report.context.scores import Table
from unveil.report.findings import Findings
from unveil.report.order import best_first, order_by


def papers_context(findings: Findings, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return, for each paper's definition, this run by it and by ours, and the paper's figures.

    A model's value is the mean over patches of all scenes, as the papers pool, each scene
    weighing as its pixels; beside it stands our value of the region that comes nearest:
    every pixel whose truth is known.
    """
    ours = {table.protocol: table for table in tables if table.region == "all"}
    rows = findings.paper_scores.dropna(subset=["value"])
    found = []
    for name, text in findings.statistics.definitions.itertuples(index=False):
        figures = findings.statistics.published
        found.append(
            {
                "name": name,
                "text": text,
                "rows": [
                    _paper_row(findings, model, part, ours.get(protocol))
                    for (protocol, model), part in _by_method(
                        findings, rows[rows["region"] == name]
                    )
                ],
                "figures": figures[figures["definition"] == name].to_dict("records"),
            }
        )
    return found


def _by_method(findings: Findings, rows: pd.DataFrame):
    """Yield the rows of each protocol and model, the best model first."""
    for protocol in order_by(rows["protocol"].unique(), PROTOCOLS):
        inside = rows[rows["protocol"] == protocol]
        for model in best_first(findings, protocol):
            part = inside[inside["model"] == model]
            if len(part):
                yield (protocol, model), part


def _paper_row(
    findings: Findings, model: str, rows: pd.DataFrame, ours: Table | None
) -> dict[str, Any]:
    values = {}
    for metric, part in rows.groupby("metric"):
        values[metric] = float(np.average(part["value"], weights=part["n_pixels"]))
    last = len(ours.labels) - 1 if ours else 0
    cells = {m: ours.cells.get((m, model, last)) for m in IN_PAPERS} if ours else {}
    return {
        "title": findings.methods[model].title,
        "protocol": str(rows["protocol"].iloc[0]),
        "scenes": int(rows["scene"].nunique()),
        "theirs": {metric: values.get(metric, math.nan) for metric in IN_PAPERS},
        "ours": {metric: cell.value for metric, cell in cells.items() if cell},
    }
