"""Data of the interactive charts: models, scenes, pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from unveil.bands import BANDS
from unveil.metrics.registry import METRICS
from unveil.report import figures as charts
from unveil.report.findings import Findings, pick_scenes, scene_scores
from unveil.report.order import best_first, best_of_each
from unveil.report.spectra import Spectra
from unveil.report.words import rounded, scene_title

MAX_EXPLORED = 300
"""Scenes whose single values are in the page, for the interactive chart."""
SHOWN_IN_CHARTS = 6
"""Models that the interactive charts show at first, the best ones."""


def charts_context(findings: Findings, pixels: Sequence[Spectra]) -> dict[str, Any]:
    """Return the data of the interactive charts, JSON-able: models, scenes, pixels."""
    twins = findings.twins
    order = [model for model in best_first(findings) if model not in twins]
    chosen = pick_scenes(findings.cover, MAX_EXPLORED)
    days = scene_scores(findings, region="occluded", metric="days_to_clear_look").max(axis=1)
    values = {}
    for metric in (name for name, of in METRICS.items() if of.explored):
        wide = scene_scores(findings, region="occluded", metric=metric).reindex(chosen)
        values[metric] = {model: _rounded(wide[model]) for model in order if model in wide}
    scored = [model for model in order if any(model in of for of in values.values())]
    shown = [m for m in best_of_each(findings) if m not in twins][:SHOWN_IN_CHARTS]
    most = findings.scores.groupby("protocol", observed=True)["model"].nunique()
    of_most = [p for p in pixels if findings.scenes[p.scene].protocol == most.idxmax()]
    first = of_most[len(of_most) // 2] if of_most else None
    colours = charts.chart_colours(findings)
    return {
        "methods": [
            {
                "id": model,
                "title": findings.methods[model].title,
                "colour": colours[model],
                "shown": model in shown,
            }
            for model in scored
        ],
        "metrics": {metric: METRICS[metric].head for metric, of in values.items() if of},
        "scenes": [
            {
                "title": scene_title(findings.scenes[name]),
                "protocol": findings.scenes[name].protocol,
                "cover": rounded(100 * findings.cover[name]),
                "days": rounded(days.get(name, math.nan)),
            }
            for name in chosen
        ],
        "values": values,
        "floors": {protocol: rounded(floor["line"]) for protocol, floor in findings.floors.items()},
        "log": [metric for metric in values if METRICS[metric].logarithmic],
        "pixels": [
            {
                "scene": pixel.scene,
                "title": scene_title(findings.scenes[pixel.scene]),
                "name": pixel.name,
                "first": pixel is first,
                "row": pixel.row,
                "column": pixel.column,
                "bands": pixel.bands,
                "nm": [BANDS[band].wavelength_nm for band in pixel.bands],
                "values": pixel.values,
                "mae": {name: rounded(pixel.mae(name)) for name in pixel.values},
            }
            for pixel in pixels
        ],
    }


def _rounded(values: pd.Series) -> list[float | None]:
    return [rounded(value) for value in values]
