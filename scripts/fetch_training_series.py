"""Fetch one series for training and write it as one file (rule fetch_training_series)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.masks.mask_scene import detect_clouds_and_shadows
from unveil.places.fetch import fetch_series
from unveil.places.folder import with_masks
from unveil.places.series import save_series
from unveil.workflow.job import job

with job(snakemake.log[0]):
    series = fetch_series(
        dict(snakemake.params.facts),
        name=snakemake.wildcards.series,
        cache=Path(snakemake.params.cache),
    )
    save_series(with_masks(series, detect_clouds_and_shadows), Path(snakemake.output.series))
