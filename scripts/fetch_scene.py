"""Fetch what a scene needs of a catalogue's files into an archive (rule fetch_scene)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.config import SceneRow
from unveil.remote.cache_archive import pack_fetched
from unveil.sources.stac.lock import stac_settings
from unveil.sources.stac.read import fetch_stac
from unveil.workflow.archives import unpack
from unveil.workflow.job import job

with job(snakemake.log[0]):
    settings = stac_settings(snakemake.config)
    unpack(snakemake.input.get("archives", []), [settings["locks"]])
    caches = fetch_stac(SceneRow(**snakemake.params.row), settings)
    pack_fetched(Path(snakemake.output.archive), caches)
