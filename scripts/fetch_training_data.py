"""Fetch one clear image for training and write it as a COG (rule fetch_training_data)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.training.datasets import fetch_image
from unveil.workflow.job import job

with job(snakemake.log[0]):
    fetch_image(
        dict(snakemake.params.facts),
        cache=Path(snakemake.params.cache),
        output=Path(snakemake.output.image),
    )
