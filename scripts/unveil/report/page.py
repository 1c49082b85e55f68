"""The report: one self-contained page, and the same figures as files for Snakemake's report."""

from __future__ import annotations

import base64
import hashlib
import json
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
from unveil.bands import BANDS
from unveil.metrics.registry import IN_PAPERS, METRICS, print_value
from unveil.metrics.registry import best_first as ranked_by
from unveil.metrics.statistics import NOT_RANKED
from unveil.raster import Grid
from unveil.report import figures as charts
from unveil.report import images
from unveil.report.findings import (
    Findings,
    Method,
    ReportOptions,
    frame_cover,
    pick_scenes,
    read_citations,
    read_findings,
)
from unveil.report.images import CLOUDY, ERROR_VIEW, SAR, SPREAD_VIEW, TRUTH, VIEWS, Row
from unveil.report.places import find_places, read_outline, to_geojson
from unveil.report.spectra import Spectra, read_spectra
from unveil.report.summary import (
    Stand,
    Table,
    Verdict,
    against,
    answer,
    best_first,
    best_of_each,
    caveats,
    count_pairs,
    make_tables,
    order_by,
    places_needed,
    scene_scores,
)
from unveil.scene import PROTOCOLS, Frame, Scene, bbox

LOG = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
VENDOR = Path(__file__).parent / "vendor"
SCRIPTS = (VENDOR / "uPlot.iife.min.js", TEMPLATES / "script.js")
FIGURES = (
    "picture.png",
    "places.svg",
    "places.geojson",
    "spectra.svg",
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
    "none": "",
}
SHOWN_FACTS = ("title", "protocol", "place")
NO_RESULT = "No method has a result under cloud. The table of skipped scenes says why."
NO_FIGURE = {
    "mae_by_days": "No scene with a result under cloud has a clear look on another date.",
    "cost": "No method with a result under cloud has a recorded time.",
    "critical_difference": "Too few places for a comparison of ranks.",
    "calibration": "No method gives a standard deviation.",
    "spectra": "No scene has both a truth and hidden pixels.",
    "places": "No scene has a georeference.",
}
"""What is written where a figure has nothing to show."""

MAX_DETAILS = 200
"""Scenes with a section of their own; the others have their row in the table of scenes."""

MAX_FILMS = 50
"""Scenes whose every frame is shown; spread over the picture where it has more."""

MAX_EXPLORED = 300
"""Scenes whose single values are in the page, for the interactive chart."""

SHOWN_IN_CHARTS = 6
"""Methods that the interactive charts show at first, the best ones."""

STRATA = {
    "days_to_clear_look": ("days to a clear look", "scenes, by the median of hidden pixels"),
    "never_seen_fraction": (
        "Never seen",
        "scenes, by the share of hidden pixels without a clear look",
    ),
    "season": ("season", "scenes, by the date of the target and the hemisphere"),
    "land_cover": ("land cover", "hidden pixels, by class; each method on its own bands"),
}
"""What else the errors are sorted by: title, and what is sorted."""

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
    "haze": "pixels under thin cloud that lets the ground through, whatever the mask calls them",
}


def render(
    *,
    scenes: Sequence[Path],
    metrics: Path,
    skipped: Path,
    manifest: Path,
    statistics: Path,
    citations: Path,
    outline: Path,
    predictions: Path,
    output: Path,
    figures: Path,
    options: ReportOptions,
    pictured: Sequence[str] | None = None,
) -> None:
    """Write ``index.html`` and the figures of a run.

    Args:
        scenes: the ``scene.json`` of every scene.
        metrics: ``metrics.csv``.
        skipped: ``skipped.csv``.
        manifest: ``manifest.json``.
        statistics: folder with the tables of the comparison over places.
        citations: BibTeX entries, by kind of model or source of data.
        outline: outline of the land for the map, a GeoJSON MultiPolygon.
        predictions: folder with ``MODEL/SCENE.tif``.
        output: the page to write.
        figures: folder for the files named in ``FIGURES``.
        options: what the user chose.
        pictured: scenes whose rasters are there; None for all.

    Raises:
        InputError: if a file is missing, damaged, or not of the same run.
    """
    findings = read_findings(
        scenes=scenes, metrics=metrics, skipped=skipped, manifest=manifest, statistics=statistics
    )
    tables = make_tables(findings, options.cloud_levels)
    rows, columns, missing, pixels = draw_rows(findings, predictions, pictured, options)
    LOG.info("picture of %d scenes and %d columns", len(rows), len(columns))
    places, land = find_places(findings), read_outline(outline)
    enough = {"min_places": options.min_places}
    curves = {
        "mae_by_cover": charts.mae_by_cover(findings, options.cloud_levels, **enough),
        "mae_by_band": charts.mae_by_band(findings),
        "mae_by_days": charts.mae_by_days(findings, min_places=options.min_places),
        "cost": charts.cost(findings),
        "critical_difference": charts.critical_difference(findings, min_places=options.min_places),
        "calibration": charts.calibration(findings),
        "spectra": charts.spectra(findings, pixels),
        "places": charts.place_map(places, land) if places else None,
    }
    drawn = {
        name: charts.to_svg(figure, name.replace("_", "-"))
        for name, figure in curves.items()
        if figure is not None
    }
    found = answers(findings, tables, options)
    context = {
        "options": options,
        "counts": count(findings),
        "methods": findings.methods,
        "answers": found,
        "comparisons": comparisons(findings, found, options),
        "papers": papers_context(findings, tables),
        "strata": strata_context(findings, options),
        "charts": charts_context(findings, pixels),
        "n_without_place": len({s.place for s in findings.scenes.values()}) - len(places),
        "bibtex": bibtex(findings, read_citations(citations)),
        "picture": picture_context(findings, rows, columns, missing),
        "tables": tables_context(findings, tables),
        "curves": {name: Markup(charts.inline(svg)) for name, svg in drawn.items()},
        "skips": skip_groups(findings),
        "scenes": scenes_context(findings, rows),
        "provenance": provenance_context(findings),
        "measures": IN_PAPERS,
        "directions": {metric: METRICS[metric].better for metric in IN_PAPERS},
        "heads": {metric: METRICS[metric].head for metric in IN_PAPERS},
        "nan": math.nan,
        "protocol_text": PROTOCOL_TEXT,
        "region_text": REGION_TEXT,
    }
    write_page(context, output)
    write_figures(findings, figures, context, rows, columns)
    for name in curves:
        svg = drawn.get(name) or charts.to_svg(
            charts.placeholder(NO_FIGURE.get(name, NO_RESULT)), name
        )
        _write(figures / f"{name}.svg", charts.on_white(svg))
    _write(figures / "places.geojson", json.dumps(to_geojson(places), indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    with raster.replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_page(context: Mapping[str, Any], output: Path) -> None:
    """Fill the template; scripts other than the page's own cannot run, nor anything load."""
    environment = make_environment()
    scripts = [path.read_text(encoding="utf-8") for path in SCRIPTS]
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template("page.html.j2").render(
        **context, scripts=[Markup(script) for script in scripts], policy=policy
    )
    _write(output, page)


def make_environment() -> jinja2.Environment:
    """Return the template environment: everything is escaped, nothing may be undefined."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, VENDOR]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # browsers refuse NaN
    environment.filters["percent"] = percent
    environment.filters["mae"] = lambda value: print_value(value, "MAE")
    environment.filters["score"] = print_value
    environment.filters["probability"] = probability
    environment.filters["figure"] = figure_value
    environment.filters["plural"] = plural
    environment.filters["pixel_size"] = pixel_size
    return environment


def write_figures(
    findings: Findings,
    folder: Path,
    context: Mapping[str, Any],
    rows: Sequence[Row],
    columns: Sequence[tuple[str, str]],
) -> None:
    """Write the files named in ``FIGURES`` that are no curves."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {row.scene: row_label(findings, row) for row in rows}
    empty = "There is no scene to show." if not rows else ""
    charts.save(charts.picture(rows, columns, labels), folder / "picture.png", empty=empty)
    environment = make_environment()
    for name in ("metrics_table.html", "skipped.html"):
        _write(folder / name, environment.get_template(f"{name}.j2").render(**context))
    _write(folder / "metrics_table.csv", pooled_scores(context["tables"]).to_csv(index=False))


# --- words and numbers ----------------------------------------------------------------


def percent(fraction: float) -> str:
    """Return a fraction as printed percent; "unknown" for NaN."""
    return "unknown" if math.isnan(fraction) else f"{100 * fraction:.0f} %"


def probability(p: float) -> str:
    """Return a probability as printed; a dash for NaN."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def figure_value(value: float, metric: str) -> str:
    """Return a number as a paper prints it; a dash where it prints none."""
    as_printed = METRICS[metric].unit in ("dB", "degree")
    return f"{value:g}" if as_printed else print_value(value, metric)


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


def count(findings: Findings) -> dict[str, int]:
    """Count what the run compared."""
    scored = set(findings.scores.dropna(subset=["value"])["model"])
    return {
        "scenes": len(findings.scenes),
        "places": len({scene.place for scene in findings.scenes.values()}),
        "methods": len(findings.methods),
        "scored": len(scored),
        "skips": len(findings.skipped),
    }


# --- the answer -----------------------------------------------------------------------


def answers(
    findings: Findings, tables: Sequence[Table], options: ReportOptions
) -> list[dict[str, Any]]:
    """Return the verdicts of each protocol, the one that compares most methods first."""
    found = []
    for table in tables:
        if table.region != "occluded" or "MAE" not in table.metrics:
            continue
        verdicts = answer(findings, table, min_places=options.min_places)
        if verdicts:
            *levels, overall = verdicts
            stand = table.stands["MAE", len(table.labels) - 1]
            found.append(
                {
                    "protocol": table.protocol,
                    "levels": levels,
                    "overall": overall,
                    "n_ranked": len(stand.ranked),
                    "caveats": caveats(findings, table),
                }
            )
    for entry in found:
        entry["others"] = outside_ranking(findings, entry["overall"], entry["protocol"])
    return sorted(found, key=lambda e: (-e["n_ranked"], -e["overall"].n_places))


def comparisons(
    findings: Findings, found: Sequence[Mapping[str, Any]], options: ReportOptions
) -> list[dict[str, Any]]:
    """Return every method against the best of each protocol, and the places it takes."""
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
                "places": max((pair.n_places for pair in pairs), default=0),
                "needed": max(options.min_places, places_needed(n_pairs)),
            }
        )
    return [entry for entry in compared if entry["pairs"]]


def outside_ranking(findings: Findings, verdict: Verdict, protocol: str) -> list[dict[str, Any]]:
    """Find methods left out for their coverage that beat the best where both have results."""
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


# --- the picture ----------------------------------------------------------------------


def draw_rows(
    findings: Findings, predictions: Path, pictured: Sequence[str] | None, options: ReportOptions
) -> tuple[list[Row], list[tuple[str, str]], list[Method], list[Spectra]]:
    """Render the rows of the picture.

    Returns:
        The rows, clear first; the columns as ``(key, title)``, the best method first;
        methods without any image; spectra of pixels of the rows.
    """
    cover = findings.cover if pictured is None else {s: findings.cover[s] for s in pictured}
    chosen = pick_scenes(cover, options.max_scenes_in_picture)
    ordered = [findings.methods[model] for model in best_first(findings)]
    shown = [m for m in ordered if not m.is_baseline]
    found = {
        scene_id: {
            m.id: path for m in shown if (path := predictions / m.id / f"{scene_id}.tif").exists()
        }
        for scene_id in chosen
    }
    used = {model for paths in found.values() for model in paths}
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
    return rows, columns, [m for m in shown if m.id not in used], pixels


def pixels_of(scene: Scene, predictions: Mapping[str, Path], size: int) -> list[Spectra]:
    """Return the spectra of a scene's pixels; none without a truth."""
    reference = scene.with_role("reference")
    if not reference or not predictions:
        return []
    truth = images.read_preview(reference[0].path, reference[0].bands, size)
    return read_spectra(scene, predictions, truth, images.read_hidden(scene, size))


def picture_context(
    findings: Findings,
    rows: Sequence[Row],
    columns: Sequence[tuple[str, str]],
    missing: Sequence[Method],
) -> dict[str, Any]:
    """Return what the template needs of the picture; other views go to the page's data."""
    errors = scene_scores(findings, region="occluded", metric="MAE")
    baselines = [m.id for m in findings.methods.values() if m.is_baseline]
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
                "scene": findings.scenes[row.scene],
                "title": scene_title(findings.scenes[row.scene]),
                "cover": findings.cover[row.scene],
                "stretch": row.stretches.get(first, ""),
                "stretch_from": row.stretch_from,
                "outline": images.outline_uri(row.outline) if row.outline.any() else "",
                "cells": _cells(findings, row, columns, errors, baselines, encoded.get(first, {})),
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
    errors: pd.DataFrame,
    baselines: Sequence[str],
    encoded: Mapping[str, Mapping[str, str]],
) -> list[dict[str, Any]]:
    known = errors.loc[row.scene].dropna().to_dict() if row.scene in errors.index else {}
    order = ranked_by(known, "MAE")
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


# --- the tables -----------------------------------------------------------------------


def tables_context(findings: Findings, tables: Sequence[Table]) -> dict[str, Any]:
    """Return the tables as plain data, for the template and for the page's script."""
    regions = list(dict.fromkeys(table.region for table in tables))
    metrics = list(dict.fromkeys(metric for table in tables for metric in table.metrics))
    return {
        "protocols": list(dict.fromkeys(table.protocol for table in tables)),
        "regions": regions,
        "metrics": metrics,
        "units": {metric: METRICS[metric].printed_unit for metric in metrics},
        "heads": {metric: METRICS[metric].head for metric in metrics},
        "notes": {metric: BETTER[METRICS[metric].better] for metric in metrics},
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


# --- as in the papers, strata, charts --------------------------------------------------


def papers_context(findings: Findings, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Return, for each paper's definition, this run by it and by ours, and the paper's figures.

    A method's value is the mean over patches of all scenes, as the papers pool, each scene
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
    """Yield the rows of each protocol and method, the best method first."""
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
        "level": str(best["level"]).partition(": ")[2] or str(best["level"]).replace("_", " "),
        "best": findings.methods[best["model"]].title,
        "mae": best["mean"],
        "low": best["low"],
        "high": best["high"],
        "next": findings.methods[following["model"]].title if following is not None else "–",
        "next_mae": following["mean"] if following is not None else math.nan,
        "places": int(best["n_places"]),
        "verdict": verdict if following is not None else "the only one",
    }


def charts_context(findings: Findings, pixels: Sequence[Spectra]) -> dict[str, Any]:
    """Return the data of the interactive charts, JSON-able: methods, scenes, pixels."""
    order = best_first(findings)
    chosen = pick_scenes(findings.cover, MAX_EXPLORED)
    days = scene_scores(findings, region="occluded", metric="days_to_clear_look").max(axis=1)
    values = {}
    for metric in (name for name, of in METRICS.items() if of.explored):
        wide = scene_scores(findings, region="occluded", metric=metric).reindex(chosen)
        values[metric] = {model: _rounded(wide[model]) for model in order if model in wide}
    scored = [model for model in order if any(model in of for of in values.values())]
    shown = best_of_each(findings)[:SHOWN_IN_CHARTS]
    most = findings.scores.groupby("protocol")["model"].nunique()
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
                "cover": _number(100 * findings.cover[name]),
                "days": _number(days.get(name, math.nan)),
            }
            for name in chosen
        ],
        "values": values,
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
                "mae": {name: _number(pixel.mae(name)) for name in pixel.values},
            }
            for pixel in pixels
        ],
    }


def _rounded(values: pd.Series) -> list[float | None]:
    return [_number(value) for value in values]


def _number(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


# --- skips, scenes, provenance --------------------------------------------------------


def skip_groups(findings: Findings) -> list[dict[str, Any]]:
    """Group the skips by stage, reason and scenes, the most frequent first."""
    groups: dict[tuple, list[str]] = {}
    for (stage, model, reason), rows in findings.skipped.groupby(["stage", "model", "reason"]):
        method = findings.methods.get(model)
        title = method.title if method else (model or "every method")
        groups.setdefault((stage, reason, tuple(sorted(set(rows["scene"])))), []).append(title)
    found = [
        {"stage": stage, "titles": titles, "reason": reason, "scenes": list(scenes)}
        for (stage, reason, scenes), titles in groups.items()
    ]
    return sorted(found, key=lambda g: (-len(g["scenes"]) * len(g["titles"]), g["reason"]))


def scenes_context(findings: Findings, rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table of all scenes and the details of as many as the page can hold."""
    every = math.ceil(len(rows) / MAX_FILMS) or 1
    films = {row.scene: row.film if i % every == 0 else () for i, row in enumerate(rows)}
    errors = scene_scores(findings, region="occluded", metric="MAE")
    unseen = scene_scores(findings, region="occluded", metric="never_seen_fraction").max(axis=1)
    days = scene_scores(findings, region="occluded", metric="days_to_clear_look").max(axis=1)
    ordered = [*films, *(s for s in findings.scenes if s not in films)]
    detailed = ordered[:MAX_DETAILS]
    index = []
    for scene_id in pick_scenes(findings.cover, len(findings.cover)):
        scene = findings.scenes[scene_id]
        known = errors.loc[scene_id].dropna().to_dict() if scene_id in errors.index else {}
        order = ranked_by(known, "MAE")
        if all(findings.methods[model].is_baseline for model in order):
            order = []
        index.append(
            {
                "scene": scene,
                "title": scene_title(scene),
                "cover": findings.cover[scene_id],
                "best": findings.methods[order[0]].title if order else "",
                "mae": known[order[0]] if order else float("nan"),
                "linked": scene_id in set(detailed),
                "unseen": unseen.get(scene_id, float("nan")),
                "days": days.get(scene_id, float("nan")),
            }
        )
    details = [_details(findings, findings.scenes[s], errors, films.get(s, ())) for s in detailed]
    return {"index": index, "details": details, "warnings": source_warnings(findings)}


def source_warnings(findings: Findings) -> list[dict[str, str]]:
    """Return what sources found contradictory about frames, by scene and date."""
    return [
        {"title": scene_title(scene), "date": frame.date, "role": frame.role, "text": text}
        for scene in findings.scenes.values()
        for frame in scene.frames
        for text in frame.facts.get("unveil:warnings", [])
    ]


def _details(
    findings: Findings, scene: Scene, errors: pd.DataFrame, film: Sequence[tuple]
) -> dict[str, Any]:
    known = errors.loc[scene.id].dropna().to_dict() if scene.id in errors.index else {}
    skips = findings.skipped[findings.skipped["scene"] == scene.id]
    frames = [f for f in scene.frames if f.role in ("target", "context", "radar", "reference")]
    frames.sort(key=lambda f: (f.date, f.role))
    return {
        "scene": scene,
        "title": scene_title(scene),
        "cover": findings.cover[scene.id],
        "scores": [(findings.methods[m].title, known[m]) for m in ranked_by(known, "MAE")],
        "skips": [
            (
                findings.methods[m].title if m in findings.methods else (m or "every method"),
                stage,
                reason,
            )
            for m, stage, reason in skips[["model", "stage", "reason"]].itertuples(index=False)
        ],
        "facts": {k: pretty(v) for k, v in scene.facts.items() if k not in SHOWN_FACTS},
        "frames": [_frame(scene, frame) for frame in frames],
        "timeline": timeline(scene),
        "where": where(scene),
        "film": [
            {
                "date": date,
                "target": role == "target",
                "uri": images.to_data_uri(image, images.FILM_QUALITY),
                "cover": percent(frame_cover(frame)),
            }
            for date, role, image in film
            for frame in scene.with_role(role)
            if frame.date == date
        ],
    }


def where(scene: Scene) -> str:
    """Return the printed centre of a scene; empty without a georeference."""
    box = bbox(scene.grid)
    if box is None:
        return ""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return f"{abs(y):.3f}° {'N' if y >= 0 else 'S'}, {abs(x):.3f}° {'E' if x >= 0 else 'W'}"


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


def provenance_context(findings: Findings) -> dict[str, Any]:
    """Return versions, methods, licences, configuration, as written in the manifest."""
    manifest = findings.manifest
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
        "methods": list(findings.methods.values()),
        "speed": {model: _speed(cost) for model, cost in manifest.get("costs", {}).items()},
        "licences": [
            {"licence": licence, "attribution": attribution, "scenes": scene_ids}
            for (licence, attribution), scene_ids in licences.items()
        ],
    }


def bibtex(findings: Findings, citations: Mapping[str, str]) -> str:
    """Return the BibTeX entries of the methods and data that ran, each work once."""
    scored = set(findings.scores["model"])
    kinds = [m.kind for m in findings.methods.values() if m.id in scored]
    sources = [str(scene.facts.get("source", "")) for scene in findings.scenes.values()]
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
