"""Search the frames of a scene and write its lock (rule search_scene)."""

from pathlib import Path

from unveil.jobs import job
from unveil.sources.stac.lock import write_lock
from unveil.sources.stac.search import search_scene

with job(snakemake.log[0]):
    params = snakemake.params
    lock = search_scene(params.request, params.settings)
    write_lock(Path(snakemake.output.lock), lock)
