"""The report: one self-contained page, and the same figures as files for Snakemake's report."""

from __future__ import annotations

import base64
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from markupsafe import Markup
from rasterio.crs import CRS

from unveil import raster
from unveil.raster import Grid
from unveil.report import figures as charts
from unveil.report import images
from unveil.report.evidence import (
    Evidence,
    Method,
    ReportOptions,
    frame_cover,
    pick_scenes,
    read_citations,
    read_evidence,
)
from unveil.report.images import CLOUDY, ERROR_VIEW, SAR, SPREAD_VIEW, TRUTH, VIEWS, Row
from unveil.report.summary import (
    Table,
    Verdict,
    against,
    answer,
    caveats,
    count_pairs,
    format_value,
    make_tables,
    places_needed,
    rank,
    scene_scores,
)
from unveil.scene import Frame, Scene

LOG = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = (
    "picture.png",
    "mae_by_cover.svg",
    "mae_by_band.svg",
    "mae_by_days.svg",
    "cost.svg",
    "critical_difference.svg",
    "calibration.svg",
    "metrics_table.html",
    "metrics_table.csv",
    "skipped.html",
)
"""Files written beside the page, always all of them."""

BETTER = {
    "low": "lower is better",
    "high": "higher is better",
    "zero": "nearer to 0 is better",
    "": "",
}
SHOWN_FACTS = ("title", "protocol", "place")
NO_RESULT = "No method has a result under cloud. The table of skipped scenes says why."
NO_FIGURE = {
    "mae_by_days": "No scene with a result under cloud has a clear look on another date.",
    "cost": "No method with a result under cloud has a recorded time.",
    "critical_difference": "Too few places for a comparison of ranks.",
    "calibration": "No method gives a standard deviation.",
}
"""What is written where a figure has nothing to show."""

MAX_DETAILS = 200
"""Scenes with a section of their own; the table of scenes lists them all."""

PROTOCOL_TEXT = {
    "paired": (
        "Paired",
        "a cloudy image and a clear image of another date, so what changed on the ground "
        "between the dates counts as error",
    ),
    "transplant": (
        "Transplanted clouds",
        "a clear date is withheld as truth, and real cloud and shadow pixels of another date "
        "of the same place are put on it",
    ),
    "simulate": (
        "Simulated clouds",
        "a clear date is withheld as truth, and generated clouds are put on it",
    ),
    "none": ("No truth", "there is no clear image to compare with, so nothing is scored"),
}
REGION_TEXT = {
    "occluded": "pixels hidden by cloud or shadow in the input: what was reconstructed",
    "all": "every pixel where the truth is known",
    "clear": "pixels that were visible in the input, against the truth",
    "clear_kept": "visible pixels, against the cloudy input: how much was altered needlessly",
    "never_seen": "pixels without a clear look in any frame",
    "shadow": "pixels under cloud shadow",
}


def render(
    *,
    scenes: Sequence[Path],
    metrics: Path,
    skipped: Path,
    manifest: Path,
    statistics: Path,
    citations: Path,
    predictions: Path,
    output: Path,
    figures: Path,
    options: ReportOptions,
) -> None:
    """Write ``index.html`` and the figures of a run.

    Args:
        scenes: the ``scene.json`` of every scene.
        metrics: ``metrics.csv``.
        skipped: ``skipped.csv``.
        manifest: ``manifest.json``.
        statistics: folder with the tables of the comparison over places.
        citations: BibTeX entries, by kind of model or source of data.
        predictions: folder with ``MODEL/SCENE.tif``.
        output: the page to write.
        figures: folder for the files named in ``FIGURES``.
        options: what the user chose.

    Raises:
        InputError: if a file is missing, damaged, or not of the same run.
    """
    evidence = read_evidence(
        scenes=scenes, metrics=metrics, skipped=skipped, manifest=manifest, statistics=statistics
    )
    tables = make_tables(evidence, options.cloud_levels)
    rows, columns, missing = draw_rows(evidence, predictions, options)
    LOG.info("picture of %d scenes and %d columns", len(rows), len(columns))
    curves = {
        "mae_by_cover": charts.mae_by_cover(evidence, options.cloud_levels),
        "mae_by_band": charts.mae_by_band(evidence),
        "mae_by_days": charts.mae_by_days(evidence, min_places=options.min_places),
        "cost": charts.cost(evidence),
        "critical_difference": charts.critical_difference(evidence, min_places=options.min_places),
        "calibration": charts.calibration(evidence),
    }
    found = answers(evidence, tables, options)
    context = {
        "options": options,
        "counts": count(evidence),
        "methods": evidence.methods,
        "answers": found,
        "comparisons": comparisons(evidence, found, options),
        "published": evidence.statistics.published.to_dict("records"),
        "bibtex": bibtex(evidence, read_citations(citations)),
        "picture": picture_context(evidence, rows, columns, missing),
        "tables": tables_context(evidence, tables),
        "curves": {
            name: Markup(charts.to_inline_svg(figure, name.replace("_", "-")))
            for name, figure in curves.items()
            if figure is not None
        },
        "skips": skip_groups(evidence),
        "scenes": scenes_context(evidence, [row.scene for row in rows]),
        "provenance": provenance_context(evidence),
        "protocol_text": PROTOCOL_TEXT,
        "region_text": REGION_TEXT,
    }
    write_page(context, output)
    write_figures(evidence, figures, context, rows, columns, curves)


def write_page(context: Mapping[str, Any], output: Path) -> None:
    """Fill the template; scripts other than the page's own cannot run, nor anything load."""
    environment = make_environment()
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template("page.html.j2").render(
        **context, script=Markup(script), policy=policy
    )
    with raster.replacing(output) as temporary:
        temporary.write_text(page, encoding="utf-8")


def make_environment() -> jinja2.Environment:
    """Return the template environment: everything is escaped, nothing may be undefined."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # browsers refuse NaN
    environment.filters["percent"] = percent
    environment.filters["mae"] = lambda value: format_value(value, "MAE")
    environment.filters["probability"] = probability
    environment.filters["figure"] = figure_value
    environment.filters["plural"] = plural
    environment.filters["pixel_size"] = pixel_size
    return environment


def write_figures(
    evidence: Evidence,
    folder: Path,
    context: Mapping[str, Any],
    rows: Sequence[Row],
    columns: Sequence[tuple[str, str]],
    curves: Mapping[str, Any],
) -> None:
    """Write the files named in ``FIGURES``."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {row.scene: row_label(evidence, row) for row in rows}
    empty = "There is no scene to show." if not rows else ""
    charts.save(charts.picture(rows, columns, labels), folder / "picture.png", empty=empty)
    for name, figure in curves.items():
        charts.save(figure, folder / f"{name}.svg", empty=NO_FIGURE.get(name, NO_RESULT))
    environment = make_environment()
    for name in ("metrics_table.html", "skipped.html"):
        text = environment.get_template(f"{name}.j2").render(**context)
        (folder / name).write_text(text, encoding="utf-8")
    pooled_scores(context["tables"]).to_csv(folder / "metrics_table.csv", index=False)


# --- words and numbers ----------------------------------------------------------------


def percent(fraction: float) -> str:
    """Return a fraction as printed percent; "unknown" for NaN."""
    return "unknown" if math.isnan(fraction) else f"{100 * fraction:.0f} %"


def probability(p: float) -> str:
    """Return a probability as printed; a dash for NaN."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def figure_value(value: float, metric: str) -> str:
    """Return a number as a paper prints it; a dash where it prints none."""
    value = float(value)
    return f"{value:g}" if metric in ("psnr", "sam") else format_value(value, metric)


def plural(number: int, noun: str) -> str:
    """Return "1 scene" or "2 scenes"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}".replace(",", " ")


def scene_title(scene: Scene) -> str:
    """Return the printed name of a scene: the title that its source gave, or its id."""
    return str(scene.facts.get("title") or scene.id)


def pixel_size(grid: Grid) -> str:
    """Return the printed width of a pixel, in metres or degrees of the grid's CRS."""
    unit = "" if not grid.crs else " m" if CRS.from_user_input(grid.crs).is_projected else "°"
    return f"{abs(grid.transform[0]):g}{unit}"


def shorten(text: str, length: int = 30) -> str:
    """Return a text of at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def row_label(evidence: Evidence, row: Row) -> str:
    """Return the text left of a row of the static picture."""
    scene = evidence.scenes[row.scene]
    lines = [
        shorten(scene_title(scene)),
        f"{percent(evidence.cover[scene.id])} cloud, {scene.protocol}",
        f"{row.stretch_from} stretched",
        next(iter(row.stretches.values()), ""),
    ]
    return "\n".join(lines)


def count(evidence: Evidence) -> dict[str, int]:
    """Count what the run compared."""
    scored = set(evidence.scores.dropna(subset=["value"])["model"])
    return {
        "scenes": len(evidence.scenes),
        "places": len({scene.place for scene in evidence.scenes.values()}),
        "methods": len(evidence.methods),
        "scored": len(scored),
        "skips": len(evidence.skipped),
    }


# --- the answer -----------------------------------------------------------------------


def answers(
    evidence: Evidence, tables: Sequence[Table], options: ReportOptions
) -> list[dict[str, Any]]:
    """Return the verdicts of each protocol, the one that compares most methods first."""
    found = []
    for table in tables:
        if table.region != "occluded" or "MAE" not in table.metrics:
            continue
        verdicts = answer(evidence, table, min_places=options.min_places)
        if verdicts:
            *levels, overall = verdicts
            found.append(
                {
                    "protocol": table.protocol,
                    "levels": levels,
                    "overall": overall,
                    "n_ranked": len(table.strata[-1].ranked),
                    "caveats": caveats(evidence, table),
                }
            )
    for entry in found:
        entry["others"] = outside_ranking(evidence, entry["overall"], entry["protocol"])
    return sorted(found, key=lambda e: (-e["n_ranked"], -e["overall"].n_places))


def comparisons(
    evidence: Evidence, found: Sequence[Mapping[str, Any]], options: ReportOptions
) -> list[dict[str, Any]]:
    """Return every method against the best of each protocol, and the places it takes."""
    compared = []
    for entry in found:
        protocol, best = entry["protocol"], entry["overall"].best
        n_pairs = count_pairs(evidence, protocol)
        pairs = against(evidence, best, protocol=protocol)
        compared.append(
            {
                "protocol": protocol,
                "best": best,
                "pairs": pairs,
                "n_pairs": n_pairs,
                "places": max((pair.n_places for pair in pairs), default=0),
                "needed": max(options.min_places, places_needed(n_pairs)),
            }
        )
    return [entry for entry in compared if entry["pairs"]]


def outside_ranking(evidence: Evidence, verdict: Verdict, protocol: str) -> list[dict[str, Any]]:
    """Find methods left out for their coverage that beat the best where both have results."""
    rows = evidence.scores[evidence.scores["protocol"] == protocol]
    wide = scene_scores(evidence, region="occluded", metric="MAE")
    wide = wide[wide.index.isin(rows["scene"])]
    found = []
    for model in wide.columns:
        both = wide[[model, verdict.best]].dropna() if model != verdict.best else wide[:0]
        if 0 < len(both) < verdict.n_scenes and both[model].mean() < both[verdict.best].mean():
            found.append(
                {
                    "model": model,
                    "n_scenes": len(both),
                    "mae": both[model].mean(),
                    "best_mae": both[verdict.best].mean(),
                }
            )
    return found


# --- the picture ----------------------------------------------------------------------


def draw_rows(
    evidence: Evidence, predictions: Path, options: ReportOptions
) -> tuple[list[Row], list[tuple[str, str]], list[Method]]:
    """Render the rows of the picture.

    Returns:
        The rows, clear first; the columns as ``(key, title)``; methods without any image.
    """
    chosen = pick_scenes(evidence.cover, options.max_scenes_in_picture)
    shown = [m for m in evidence.methods.values() if not m.is_baseline]
    found = {
        scene_id: {
            m.id: path for m in shown if (path := predictions / m.id / f"{scene_id}.tif").exists()
        }
        for scene_id in chosen
    }
    used = {model for paths in found.values() for model in paths}
    size = images.thumbnail_size(len(chosen), len(used) + 3, options.chip_px)
    rows = [
        images.make_row(evidence.scenes[scene_id], found[scene_id], options, size)
        for scene_id in chosen
    ]
    columns = [(CLOUDY, CLOUDY)]
    if any(evidence.scenes[scene_id].radar for scene_id in chosen):
        columns.append((SAR, SAR))
    columns += [(m.id, m.title) for m in shown if m.id in used]
    if any(evidence.scenes[scene_id].with_role("reference") for scene_id in chosen):
        columns.append((TRUTH, TRUTH))
    return rows, columns, [m for m in shown if m.id not in used]


def picture_context(
    evidence: Evidence,
    rows: Sequence[Row],
    columns: Sequence[tuple[str, str]],
    missing: Sequence[Method],
) -> dict[str, Any]:
    """Return what the template needs of the picture; other views go to the page's data."""
    errors = scene_scores(evidence, region="occluded", metric="MAE")
    baselines = [m.id for m in evidence.methods.values() if m.is_baseline]
    views = {view: name for view, (name, _) in VIEWS.items() if any(view in r.images for r in rows)}
    if any(row.images.get(ERROR_VIEW) for row in rows):
        views[ERROR_VIEW] = "Mean absolute error"
    if any(row.images.get(SPREAD_VIEW) for row in rows):
        views[SPREAD_VIEW] = "Standard deviation that the method states"
    first = next(iter(views), "true")
    encoded = {
        view: {row.scene: _encode(row, view) for row in rows if view in row.images}
        for view in views
    }
    return {
        "columns": columns,
        "has_truth": columns[-1][0] == TRUTH,
        "missing": missing,
        "views": views,
        "first_view": first,
        "data": {view: encoded[view] for view in views if view != first},
        "stretches": {row.scene: row.stretches for row in rows},
        "error_max": images.ERROR_MAX,
        "sar_note": images.SAR_NOTE,
        "rows": [
            {
                "scene": evidence.scenes[row.scene],
                "title": scene_title(evidence.scenes[row.scene]),
                "cover": evidence.cover[row.scene],
                "stretch": row.stretches.get(first, ""),
                "stretch_from": row.stretch_from,
                "outline": images.outline_uri(row.outline) if row.outline.any() else "",
                "cells": _cells(evidence, row, columns, errors, baselines, encoded.get(first, {})),
            }
            for row in rows
        ],
    }


def _encode(row: Row, view: str) -> dict[str, str]:
    # Radar and truth look the same in every view that shows them: stored once.
    skip = {SAR} if view != next(iter(row.images)) else set()
    return {c: images.to_data_uri(i) for c, i in row.images[view].items() if c not in skip}


def _cells(
    evidence: Evidence,
    row: Row,
    columns: Sequence[tuple[str, str]],
    errors: pd.DataFrame,
    baselines: Sequence[str],
    encoded: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    known = errors.loc[row.scene].dropna().to_dict() if row.scene in errors.index else {}
    order = rank(known, "MAE")
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
                "reason": "" if uri else _why_empty(evidence, row.scene, key),
            }
        )
    return cells


def _why_empty(evidence: Evidence, scene: str, key: str) -> str:
    if key == SAR:
        return "no radar"
    if key == TRUTH:
        return "no cloud-free image"
    return "; ".join(evidence.reasons(scene, key)) or "no image in this view"


# --- the tables -----------------------------------------------------------------------


def tables_context(evidence: Evidence, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the tables as plain data, for the template and for the page's script."""
    regions = list(dict.fromkeys(table.region for table in tables))
    metrics = list(dict.fromkeys(metric for table in tables for metric in table.metrics))
    units = {metric: unit for table in reversed(tables) for metric, unit in table.units.items()}
    return {
        "protocols": list(dict.fromkeys(table.protocol for table in tables)),
        "regions": regions,
        "metrics": metrics,
        "units": units,
        "heads": {metric: metric_head(metric, units[metric]) for metric in metrics},
        "notes": {metric: BETTER[direction(metric)] for metric in metrics},
        "directions": {metric: direction(metric) for metric in metrics},
        "levels": [stratum.label for stratum in tables[0].strata] if tables else [],
        "titles": {m.id: m.title for m in evidence.methods.values()},
        "blocks": {table.protocol + "|" + table.region: _table_data(table) for table in tables},
    }


def metric_head(metric: str, unit: str) -> str:
    """Return the head of a metric's column: its name with the unit."""
    name = metric.replace("R2", "R²").replace("_", " ")
    return f"{name} ({unit})" if unit else name


def direction(metric: str) -> str:
    """Return which side of a metric is better: ``low``, ``high``, ``zero`` or empty."""
    return next(iter(rank({"low": -1.0, "zero": 0.0, "high": 1.0}, metric)), "")


def _table_data(table: Table) -> dict[str, Any]:
    """Return a table as ``{models, strata, cells[metric][model][stratum]}``."""
    cells = {
        metric: [
            [_cell_data(table.cells[metric, model, i]) for i in range(len(table.strata))]
            for model in table.models
        ]
        for metric in table.metrics
    }
    strata = [
        {
            "label": stratum.label,
            "scenes": len(stratum.common),
            "of": stratum.n_scenes,
            "places": max(
                (
                    table.cells[metric, m, i].n_places
                    for metric in table.metrics
                    for m in stratum.ranked
                ),
                default=0,
            ),
        }
        for i, stratum in enumerate(table.strata)
    ]
    return {"models": list(table.models), "strata": strata, "cells": cells}


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
                for stratum, cell in zip(block["strata"], cells, strict=True):
                    rows.append(
                        {
                            "protocol": protocol,
                            "region": region,
                            "cloud_level": stratum["label"],
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


# --- skips, scenes, provenance --------------------------------------------------------


def skip_groups(evidence: Evidence) -> list[dict[str, Any]]:
    """Group the skips by stage, method and reason, the most frequent first."""
    groups = []
    for (stage, model, reason), rows in evidence.skipped.groupby(["stage", "model", "reason"]):
        method = evidence.methods.get(model)
        groups.append(
            {
                "stage": stage,
                "title": method.title if method else (model or "every method"),
                "reason": reason,
                "scenes": sorted(set(rows["scene"])),
            }
        )
    return sorted(groups, key=lambda g: (-len(g["scenes"]), g["stage"], g["title"], g["reason"]))


def scenes_context(evidence: Evidence, pictured: Sequence[str]) -> dict[str, Any]:
    """Return the table of all scenes and the details of as many as the page can hold."""
    errors = scene_scores(evidence, region="occluded", metric="MAE")
    unseen = scene_scores(evidence, region="occluded", metric="never_seen_fraction").max(axis=1)
    days = scene_scores(evidence, region="occluded", metric="days_to_clear_look").max(axis=1)
    ordered = [*pictured, *(s for s in evidence.scenes if s not in set(pictured))]
    detailed = ordered[:MAX_DETAILS]
    index = []
    for scene_id in pick_scenes(evidence.cover, len(evidence.cover)):
        scene = evidence.scenes[scene_id]
        known = errors.loc[scene_id].dropna().to_dict() if scene_id in errors.index else {}
        order = rank(known, "MAE")
        if all(evidence.methods[model].is_baseline for model in order):
            order = []
        index.append(
            {
                "scene": scene,
                "title": scene_title(scene),
                "cover": evidence.cover[scene_id],
                "best": evidence.methods[order[0]].title if order else "",
                "mae": known[order[0]] if order else float("nan"),
                "linked": scene_id in set(detailed),
                "unseen": unseen.get(scene_id, float("nan")),
                "days": days.get(scene_id, float("nan")),
            }
        )
    details = [_details(evidence, evidence.scenes[s], errors) for s in detailed]
    return {"index": index, "details": details, "warnings": source_warnings(evidence)}


def source_warnings(evidence: Evidence) -> list[dict[str, str]]:
    """Return what sources found contradictory about frames, by scene and date."""
    return [
        {"title": scene_title(scene), "date": frame.date, "role": frame.role, "text": text}
        for scene in evidence.scenes.values()
        for frame in scene.frames
        for text in frame.facts.get("unveil:warnings", [])
    ]


def _details(evidence: Evidence, scene: Scene, errors: pd.DataFrame) -> dict[str, Any]:
    known = errors.loc[scene.id].dropna().to_dict() if scene.id in errors.index else {}
    skips = evidence.skipped[evidence.skipped["scene"] == scene.id]
    frames = [f for f in scene.frames if f.role in ("target", "context", "radar", "reference")]
    frames.sort(key=lambda f: (f.date, f.role))
    return {
        "scene": scene,
        "title": scene_title(scene),
        "cover": evidence.cover[scene.id],
        "scores": [(evidence.methods[m].title, known[m]) for m in rank(known, "MAE")],
        "skips": [
            (
                evidence.methods[m].title if m in evidence.methods else (m or "every method"),
                stage,
                reason,
            )
            for m, stage, reason in skips[["model", "stage", "reason"]].itertuples(index=False)
        ],
        "facts": {k: pretty(v) for k, v in scene.facts.items() if k not in SHOWN_FACTS},
        "frames": [_frame(scene, frame) for frame in frames],
        "timeline": timeline(scene),
    }


def _frame(scene: Scene, frame: Frame) -> dict[str, Any]:
    facts = {key.removeprefix("unveil:"): value for key, value in frame.facts.items()}
    shift = facts.pop("shift_px", None)
    reliability, applied = facts.pop("shift_reliability", None), facts.pop("shift_applied", False)
    note = facts.pop("shift_note", "")
    masks = pretty(facts.pop("mask_sources", []))
    notes = pretty(facts.pop("mask_notes", []))
    for shown in ("eo:cloud_cover", "shadow_cover", "warnings"):
        facts.pop(shown, None)
    scored = frame.role in ("target", "context")
    return {
        "date": frame.date,
        "role": frame.role,
        "days": (frame.day - scene.target.day).days,
        "cover": percent(frame_cover(frame)) if scored else "–",
        "shift": f"{shift[0]:+.2f}, {shift[1]:+.2f}" if shift else "–",
        "reliability": f"{reliability:.2f}" if shift and reliability is not None else "–",
        "applied": "applied" if applied else note,
        "masks": (masks or notes) if scored else "",
        "others": pretty(facts),
    }


def pretty(value: Any) -> str:
    """Return a recorded fact as words: lists joined, mappings as "key value" pairs."""
    if isinstance(value, Mapping):
        pairs = ((key.replace("_", " "), pretty(item)) for key, item in value.items())
        return "; ".join(f"{key} {text}" for key, text in pairs if text)
    if isinstance(value, list | tuple):
        return ", ".join(pretty(item) for item in value)
    return "" if value is None else str(value)


def timeline(scene: Scene, *, width: float = 100.0) -> list[dict[str, Any]]:
    """Place the optical frames on a line of dates: x in percent, clear share 0...1."""
    frames = [scene.target, *scene.context]
    days = np.array([frame.day.toordinal() for frame in frames], float)
    span = max(days.max() - days.min(), 1.0)
    return [
        {
            "x": float(width * (day - days.min()) / span) if len(frames) > 1 else width / 2,
            "date": frame.date,
            "target": frame.role == "target",
            "clear_share": 1 - cover if not math.isnan(cover := frame_cover(frame)) else None,
        }
        for day, frame in sorted(zip(days, frames, strict=True), key=lambda pair: pair[0])
    ]


def provenance_context(evidence: Evidence) -> dict[str, Any]:
    """Return versions, methods, licences, configuration, as written in the manifest."""
    manifest = evidence.manifest
    licences: dict[tuple[str, str], list[str]] = {}
    for scene_id, facts in manifest.get("scenes", {}).items():
        key = (str(facts.get("licence", "")), str(facts.get("attribution", "")))
        licences.setdefault(key, []).append(scene_id)
    known = ("versions", "hardware", "command", "config", "models", "scenes", "costs")
    return {
        "command": manifest.get("command", ""),
        "versions": manifest.get("versions", {}),
        "hardware": manifest.get("hardware", {}),
        "other": {k: v for k, v in manifest.items() if k not in known},
        "config": yaml.safe_dump(manifest.get("config", {}), sort_keys=False, allow_unicode=True),
        "methods": list(evidence.methods.values()),
        "speed": {model: _speed(cost) for model, cost in manifest.get("costs", {}).items()},
        "licences": [
            {"licence": licence, "attribution": attribution, "scenes": scene_ids}
            for (licence, attribution), scene_ids in licences.items()
        ],
    }


def bibtex(evidence: Evidence, citations: Mapping[str, str]) -> str:
    """Return the BibTeX entries of the methods and data that ran, each work once."""
    scored = set(evidence.scores["model"])
    kinds = [m.kind for m in evidence.methods.values() if m.id in scored]
    sources = [str(scene.facts.get("source", "")) for scene in evidence.scenes.values()]
    works = {}
    for key in dict.fromkeys([*kinds, *sources]):
        if key in citations:
            _, _, body = citations[key].partition(",")
            works.setdefault(body, citations[key])
    return "\n\n".join(works.values())


def _speed(cost: Mapping[str, Any]) -> str:
    """Return the time per megapixel of a method, with the devices it ran on."""
    if not cost.get("pixels"):
        return "–"
    seconds = cost["model_seconds"] / cost["pixels"] * 1e6
    return f"{seconds:.3g} s/Mpx, {', '.join(cost.get('devices', []))}".rstrip(", ")
