"""Render the HTML page and its figures (rule render_report)."""

from pathlib import Path

from unveil.jobs import job
from unveil.report import ReportOptions, render
from unveil.shards import scene_files

with job(snakemake.log[0]):
    render(
        scenes=list(scene_files(snakemake.input.scenes, snakemake.params.home)),
        metrics=Path(snakemake.input.metrics),
        skipped=Path(snakemake.input.skipped),
        manifest=Path(snakemake.input.manifest),
        statistics=Path(snakemake.input.comparison).parent,
        citations=Path(snakemake.input.citations),
        outline=Path(snakemake.input.outline),
        predictions=Path(snakemake.params.predictions),
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.picture).parent,
        options=ReportOptions(**snakemake.params.options),
    )
