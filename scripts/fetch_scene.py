"""Fetch what a scene needs of a catalogue's files into an archive (rule fetch_scene)."""

from pathlib import Path

from unveil.config import SceneRow
from unveil.jobs import job
from unveil.remote import unpack
from unveil.sources.fetched import pack_fetched
from unveil.sources.locks import stac_settings
from unveil.sources.stac import fetch_stac

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []))
    caches = fetch_stac(SceneRow(**snakemake.params.row), stac_settings(snakemake.config))
    pack_fetched(Path(snakemake.output.archive), caches)
