"""Render the HTML page and its figures (rule render_report)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.metrics.tables import TABLES
from unveil.records import read_record, require_recorded
from unveil.report import ReportOptions, render
from unveil.workflow.archives import unpack
from unveil.workflow.job import job
from unveil.workflow.shards import scene_files

with job(snakemake.log[0]):
    unpack(
        snakemake.input.get("archives", []), [snakemake.params.home, snakemake.params.predictions]
    )
    given = snakemake.input
    require_recorded(given.checksums, [given.metrics, given.skipped])
    require_recorded(given.statistics, [given[name] for name in TABLES])
    read_record(given.manifest, kind="a manifest")
    render(
        scenes=list(scene_files(snakemake.input.scenes, snakemake.params.home)),
        metrics=Path(snakemake.input.metrics),
        skipped=Path(snakemake.input.skipped),
        manifest=Path(snakemake.input.manifest),
        statistics=Path(snakemake.input.comparison).parent,
        citations=Path(snakemake.params.resources) / "citations.bib",
        outline=Path(snakemake.params.resources) / "land_110m.geojson",
        predictions=Path(snakemake.params.predictions),
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.picture).parent,
        pictured=snakemake.params.get("pictured"),
        options=ReportOptions(**snakemake.params.options),
    )
