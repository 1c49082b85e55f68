"""Fetch one published weights file, or check the one that is there (rule fetch_one_weights)."""

from pathlib import Path

from unveil.jobs import job
from unveil.weights.fetch import fetch
from unveil.weights.published import PublishedWeights

with job(snakemake.log[0]):
    entry = PublishedWeights(**snakemake.params.entry)
    fetch(entry, Path(snakemake.output.weights).parent)
