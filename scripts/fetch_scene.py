"""Fetch what a scene needs of a catalogue's files into an archive (rule fetch_scene)."""

from pathlib import Path

from unveil.config import SceneRow
from unveil.jobs import job
from unveil.remote.cache_archive import pack_fetched
from unveil.sources.locks import stac_settings
from unveil.sources.stac import fetch_stac
from unveil.workflow.archives import unpack

with job(snakemake.log[0]):
    settings = stac_settings(snakemake.config)
    unpack(snakemake.input.archives, [settings["locks"]])
    caches = fetch_stac(SceneRow(**snakemake.params.row), settings)
    pack_fetched(Path(snakemake.output.archive), caches)
