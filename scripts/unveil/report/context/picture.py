"""The comparison picture: rows of scenes, columns of models, and spectra of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from unveil.metrics.registry import best_first as ranked_by
from unveil.predictions import find_images
from unveil.protocols import PROTOCOLS
from unveil.report import images
from unveil.report.findings import (
    Findings,
    Method,
    ReportOptions,
    errors_on_most_bands,
    pick_scenes,
    scene_scores,
)
from unveil.report.images import CLOUDY, ERROR_VIEW, SAR, SPREAD_VIEW, TRUTH, VIEWS, Row
from unveil.report.order import best_first
from unveil.report.spectra import Spectra, read_spectra
from unveil.report.words import percent, scene_title, shorten
from unveil.scene import Scene
from unveil.workflow.shards import require_rasters


@dataclass(frozen=True)
class Picture:
    """The comparison picture.

    Attributes:
        rows: a scene each, clear first.
        columns: ``(key, title)``, the best model first.
        missing: models without any image.
        pixels: spectra of pixels of the rows.
    """

    rows: list[Row]
    columns: list[tuple[str, str]]
    missing: list[Method]
    pixels: list[Spectra]


def draw_picture(
    findings: Findings, predictions: Path, pictured: Sequence[str] | None, options: ReportOptions
) -> Picture:
    """Render the scenes that ``pictured`` names (None for all), spread over cloud cover."""
    cover = findings.cover if pictured is None else {s: findings.cover[s] for s in pictured}
    chosen = pick_scenes(cover, options.max_scenes_in_picture)
    require_rasters(findings.scenes[scene_id] for scene_id in chosen)
    ordered = [findings.methods[model] for model in best_first(findings)]
    shown = [m for m in ordered if not m.is_baseline]
    found = {
        scene_id: find_images(predictions, [m.id for m in shown], scene_id) for scene_id in chosen
    }
    used = {model for paths in found.values() for model in paths}
    chosen = order_by_protocol(findings, chosen)
    size = images.thumbnail_size(len(chosen), len(used) + 3, options.chip_px)
    rows = [
        images.make_row(findings.scenes[scene_id], found[scene_id], options, size)
        for scene_id in chosen
    ]
    columns = [(CLOUDY, CLOUDY)]
    if any(findings.scenes[scene_id].radar for scene_id in chosen):
        columns.append((SAR, SAR))
    columns += [(m.id, m.title) for m in shown if m.id in used]
    if any(findings.scenes[scene_id].with_role("reference") for scene_id in chosen):
        columns.append((TRUTH, TRUTH))
    pixels = [
        pixel
        for scene_id in chosen
        for pixel in pixels_of(findings.scenes[scene_id], found[scene_id], size)
    ]
    return Picture(rows, columns, [m for m in shown if m.id not in used], pixels)


def order_by_protocol(findings: Findings, scenes: Sequence[str]) -> list[str]:
    """Return scenes with real pairs first, each protocol from clear to cloudy."""
    trust = list(PROTOCOLS)
    return sorted(scenes, key=lambda scene: trust.index(findings.scenes[scene].protocol))


def answered_rows(picture: Picture) -> list[Row]:
    """Return the rows that at least half as many models answered as the one of most."""
    counts = {row.scene: len(set().union(*row.images.values())) for row in picture.rows}
    most = max(counts.values(), default=0)
    return [row for row in picture.rows if 2 * counts[row.scene] >= most]


def pixels_of(scene: Scene, predictions: Mapping[str, Path], size: int) -> list[Spectra]:
    """Return the spectra of a scene's pixels; none without a truth."""
    reference = scene.with_role("reference")
    if not reference or not predictions:
        return []
    truth = images.read_preview(reference[0].path, reference[0].bands, size)
    return read_spectra(scene, predictions, truth, images.read_hidden(scene, size))


def picture_context(findings: Findings, picture: Picture) -> dict[str, Any]:
    """Return what the template needs of the picture; other views go to the page's data."""
    rows, columns = picture.rows, picture.columns
    errors = scene_scores(findings, region="occluded", metric="MAE")
    compared = errors_on_most_bands(findings)
    baselines = [m.id for m in findings.methods.values() if m.is_baseline]
    views = {view: name for view, (name, _) in VIEWS.items() if any(view in r.images for r in rows)}
    if any(row.images.get(ERROR_VIEW) for row in rows):
        views[ERROR_VIEW] = "Mean absolute error"
    if any(row.images.get(SPREAD_VIEW) for row in rows):
        views[SPREAD_VIEW] = "Standard deviation that the model states"
    first = next(iter(views), "true")
    encoded = {
        view: {row.scene: _encode(row, view) for row in rows if view in row.images}
        for view in views
    }
    return {
        "columns": columns,
        "has_truth": columns[-1][0] == TRUTH,
        "missing": picture.missing,
        "views": views,
        "first_view": first,
        "data": {view: encoded[view] for view in views if view != first},
        "stretches": {row.scene: row.stretches for row in rows},
        "error_max": images.ERROR_MAX,
        "sar_note": images.SAR_NOTE,
        "rows": [
            {
                "scene": findings.scenes[row.scene],
                "title": scene_title(findings.scenes[row.scene]),
                "cover": findings.cover[row.scene],
                "stretch": row.stretches.get(first, ""),
                "stretch_from": row.stretch_from,
                "outline": images.outline_uri(row.outline) if row.outline.any() else "",
                "cells": _cells(
                    findings,
                    row,
                    columns,
                    errors=errors,
                    compared=compared,
                    baselines=baselines,
                    encoded=encoded.get(first, {}),
                ),
            }
            for row in rows
        ],
    }


def _encode(row: Row, view: str) -> dict[str, str]:
    # Radar and truth look the same in every view that shows them: stored once.
    skip = {SAR} if view != next(iter(row.images)) else set()
    return {c: images.to_data_uri(i) for c, i in row.images[view].items() if c not in skip}


def _cells(
    findings: Findings,
    row: Row,
    columns: Sequence[tuple[str, str]],
    *,
    errors: pd.DataFrame,
    compared: pd.DataFrame,
    baselines: Sequence[str],
    encoded: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    known = errors.loc[row.scene].dropna().to_dict() if row.scene in errors.index else {}
    like = compared.loc[row.scene].dropna().to_dict() if row.scene in compared.index else {}
    order = ranked_by(like, "MAE")
    cells = []
    for key, title in columns:
        model = baselines[0] if key == CLOUDY and baselines else key
        uri = encoded.get(row.scene, {}).get(key, "")
        cells.append(
            {
                "key": key,
                "title": title,
                "uri": uri,
                "mae": known.get(model),
                "best": bool(order) and order[0] == model and len(order) > 1,
                "reason": "" if uri else _why_empty(findings, row.scene, key),
            }
        )
    return cells


def _why_empty(findings: Findings, scene: str, key: str) -> str:
    if key == SAR:
        return "no radar"
    if key == TRUTH:
        return "no cloud-free image"
    return "; ".join(findings.reasons(scene, key)) or "no image in this view"


def row_label(findings: Findings, row: Row) -> str:
    """Return the text left of a row of the static picture."""
    scene = findings.scenes[row.scene]
    lines = [
        shorten(scene_title(scene)),
        f"{percent(findings.cover[scene.id])} cloud, {scene.protocol}",
        f"{row.stretch_from} stretched",
        next(iter(row.stretches.values()), ""),
    ]
    return "\n".join(lines)
