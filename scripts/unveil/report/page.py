"""The report: one self-contained page, and the same figures as files for Snakemake's report."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from unveil import raster
from unveil.metrics.registry import IN_PAPERS, METRICS, print_value
from unveil.metrics.tables import harmless
from unveil.protocols import PROTOCOLS, title_of
from unveil.report import figures as charts
from unveil.report.context.agreement import agreement_context
from unveil.report.context.answer import answers, comparisons
from unveil.report.context.charts import charts_context
from unveil.report.context.claim import claim_picture, claims, networks_and_fillings
from unveil.report.context.papers import papers_context
from unveil.report.context.picture import (
    Picture,
    answered_rows,
    draw_picture,
    picture_context,
    row_label,
)
from unveil.report.context.provenance import bibtex, provenance_context
from unveil.report.context.scenes import scenes_context, skip_groups
from unveil.report.context.scores import make_tables, pooled_scores, strata_context, tables_context
from unveil.report.findings import Findings, ReportOptions, read_citations, read_findings
from unveil.report.order import REAL
from unveil.report.places import Place, find_places, read_outline, to_geojson
from unveil.report.spectra import Spectra
from unveil.report.words import (
    REGION_TEXT,
    figure_value,
    percent,
    pixel_size,
    plural,
    probability,
    region_name,
)

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
NO_RESULT = "No model has a result under cloud. The table of skipped scenes says why."
NO_FIGURE = {
    "mae_by_days": "No scene with a result under cloud has a clear look on another date.",
    "cost": "No model with a result under cloud has a recorded time.",
    "critical_difference": "Too few places for a comparison of ranks.",
    "calibration": "No model gives a standard deviation.",
    "spectra": "No scene has both a truth and hidden pixels.",
    "places": "No scene has a georeference.",
}
"""What is written where a figure has nothing to show."""


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
    picture = draw_picture(findings, predictions, pictured, options)
    LOG.info("picture of %d scenes and %d columns", len(picture.rows), len(picture.columns))
    places = find_places(findings)
    curves = draw_curves(findings, picture.pixels, places, read_outline(outline), options)
    context = make_context(findings, picture, curves, options)
    context["n_without_place"] = context["counts"]["places"] - len(places)
    context["bibtex"] = bibtex(findings, read_citations(citations))
    write_page(context, output)
    write_figures(findings, figures, context, picture)
    write_curves(curves, figures)
    _write(figures / "places.geojson", json.dumps(to_geojson(places), indent=1) + "\n")


def draw_curves(
    findings: Findings,
    pixels: Sequence[Spectra],
    places: Sequence[Place],
    land: Sequence[Sequence[Sequence[float]]],
    options: ReportOptions,
) -> dict[str, str]:
    """Draw every figure but the picture, as SVG; empty where it has nothing to show."""
    enough = {"min_places": options.min_places}
    drawn = {
        "mae_by_cover": charts.mae_by_cover(findings, options.cloud_levels, **enough),
        "mae_by_band": charts.mae_by_band(findings),
        "mae_by_days": charts.mae_by_days(findings, **enough),
        "cost": charts.cost(findings),
        "critical_difference": charts.critical_difference(findings, **enough),
        "calibration": charts.calibration(findings),
        "spectra": charts.spectra(findings, pixels),
        "places": charts.place_map(places, land) if places else None,
    }
    return {
        name: charts.to_svg(figure, name.replace("_", "-")) if figure else ""
        for name, figure in drawn.items()
    }


def make_context(
    findings: Findings, picture: Picture, curves: Mapping[str, str], options: ReportOptions
) -> dict[str, Any]:
    """Return what the templates print, section by section."""
    tables = make_tables(findings, options.cloud_levels)
    found = answers(findings, tables, options)
    shown = picture_context(findings, picture)
    claimed = claims(findings, options)
    return {
        "options": options,
        "counts": count(findings),
        "methods": findings.methods,
        "answers": found,
        "comparisons": comparisons(findings, found, options),
        "papers": papers_context(findings, tables),
        "strata": strata_context(findings, options),
        "charts": charts_context(findings, picture.pixels),
        "picture": shown,
        "claims": claimed,
        "claim_picture": claim_picture(findings, claimed, picture, shown),
        "networks": networks_and_fillings(findings, claimed[0].protocol) if claimed else [],
        "agreement": agreement_context(findings),
        "real": REAL,
        "tables": tables_context(findings, tables),
        "curves": {name: Markup(charts.inline(svg)) for name, svg in curves.items() if svg},
        "skips": skip_groups(findings),
        "scenes": scenes_context(findings, picture.rows),
        "provenance": provenance_context(findings),
        "measures": IN_PAPERS,
        "directions": {metric: METRICS[metric].better for metric in IN_PAPERS},
        "heads": {metric: METRICS[metric].head for metric in IN_PAPERS},
        "nan": math.nan,
        "most_points": charts.MOST_POINTS,
        "protocol_text": {p.id: (p.title, p.explanation) for p in PROTOCOLS.values()},
        "clean": [p.id for p in PROTOCOLS.values() if p.variant_of],
        "region_text": REGION_TEXT,
    }


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
    environment.filters["protocol_title"] = title_of
    environment.filters["region"] = region_name
    environment.filters["percent"] = percent
    environment.filters["mae"] = lambda value: print_value(value, "MAE")
    environment.filters["score"] = print_value
    environment.filters["probability"] = probability
    environment.filters["figure"] = figure_value
    environment.filters["plural"] = plural
    environment.filters["pixel_size"] = pixel_size
    return environment


def write_figures(
    findings: Findings, folder: Path, context: Mapping[str, Any], picture: Picture
) -> None:
    """Write the files named in ``FIGURES`` that are no curves."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = answered_rows(picture)
    labels = {row.scene: row_label(findings, row) for row in rows}
    empty = "There is no scene to show." if not rows else ""
    figure = charts.picture(rows, picture.columns, labels)
    charts.save(figure, folder / "picture.png", empty=empty)
    environment = make_environment()
    for name in ("metrics_table.html", "skipped.html"):
        _write(folder / name, environment.get_template(f"{name}.j2").render(**context))
    _write(folder / "metrics_table.csv", as_csv(pooled_scores(context["tables"])))


def as_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV in which no text is a formula to a spreadsheet."""
    return table.map(lambda held: harmless(held) if isinstance(held, str) else held).to_csv(
        index=False
    )


def write_curves(curves: Mapping[str, str], folder: Path) -> None:
    """Write the curves as files on white; where one is empty, why."""
    for name, svg in curves.items():
        why = charts.placeholder(NO_FIGURE.get(name, NO_RESULT)) if not svg else None
        shown = charts.to_svg(why, name) if why else svg
        _write(folder / f"{name}.svg", charts.on_white(shown))


def count(findings: Findings) -> dict[str, Any]:
    """Count what the run compared."""
    scored = set(findings.scores.dropna(subset=["value"])["model"])
    missing = findings.without_weights()
    return {
        "scenes": len(findings.scenes),
        "by_protocol": Counter(scene.protocol for scene in findings.scenes.values()),
        "places": len({scene.place for scene in findings.scenes.values()}),
        "methods": len(findings.methods),
        "scored": len(scored),
        "without_weights": len(missing),
        "skips": int((~findings.skipped["model"].isin(missing)).sum()),
    }
