"""Fetch one clear image for training and write it as a COG (rule fetch_training_data)."""

from pathlib import Path

from unveil.jobs import job
from unveil.training.datasets import fetch_image

with job(snakemake.log[0]):
    fetch_image(
        dict(snakemake.params.facts),
        cache=Path(snakemake.params.cache),
        output=Path(snakemake.output.image),
    )
