"""Search the frames of a scene and write its lock (rule search_scene)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.sources.stac.lock import write_lock
from unveil.sources.stac.search import search_scene
from unveil.workflow.job import job

with job(snakemake.log[0]):
    params = snakemake.params
    lock = search_scene(params.request, params.settings)
    write_lock(Path(snakemake.output.lock), lock)
