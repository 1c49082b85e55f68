"""Fetch one published weights file, or check the one that is there.

Rule fetch_one_weights; rule store_weights also packs it for a store.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.weights.fetch import fetch, record_path
from unveil.weights.published import PublishedWeights
from unveil.workflow.archives import pack, unpack
from unveil.workflow.job import job

with job(snakemake.log[0]):
    entry = PublishedWeights(**snakemake.params.entry)
    unpack(snakemake.input.get("archives", []), [snakemake.params.folder])
    path = fetch(entry, Path(snakemake.params.folder))
    pack(snakemake.output.get("archives", []), [path, record_path(path)])
