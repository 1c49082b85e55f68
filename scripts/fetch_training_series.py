"""Fetch one series for training and write it as one file (rule fetch_training_series)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.places.fetch import fetch_as_file
from unveil.workflow.job import job

with job(snakemake.log[0]):
    fetch_as_file(
        dict(snakemake.params.facts),
        name=snakemake.wildcards.series,
        cache=Path(snakemake.params.cache),
        output=Path(snakemake.output.series),
    )
