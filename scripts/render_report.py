"""Render the HTML page and its figures (rule render_report)."""

from pathlib import Path

from unveil.jobs import job
from unveil.remote import unpack
from unveil.report import ReportOptions, render
from unveil.shards import scene_files

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []))
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
