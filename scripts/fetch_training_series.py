"""Fetch one series for training and write it as one file (rule fetch_training_series)."""

from pathlib import Path

from unveil.jobs import job
from unveil.training.series.read import fetch_series

with job(snakemake.log[0]):
    fetch_series(
        dict(snakemake.params.facts),
        name=snakemake.wildcards.series,
        cache=Path(snakemake.params.cache),
        output=Path(snakemake.output.series),
    )
