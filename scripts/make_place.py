"""Fetch one public place and lay it out as a folder (rule make_place)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.masks.mask_scene import detect_clouds
from unveil.places.fetch import fetch_series
from unveil.places.folder import write_place
from unveil.places.table import place_of
from unveil.workflow.job import job

with job(snakemake.log[0]):
    place = place_of(snakemake.wildcards.place, field="place")
    series = fetch_series(place.facts, name=place.id, cache=Path(snakemake.params.cache))
    write_place(place, series, Path(snakemake.output.record).parent, detect=detect_clouds)
