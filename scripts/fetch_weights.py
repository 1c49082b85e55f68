"""Fetch one published weights file, or check the one that is there.

Rule fetch_one_weights; rule store_weights also packs it for a store.
"""

from pathlib import Path

from unveil.jobs import job
from unveil.weights.fetch import fetch, record_path
from unveil.weights.published import PublishedWeights
from unveil.workflow.archives import pack, unpack

with job(snakemake.log[0]):
    entry = PublishedWeights(**snakemake.params.entry)
    unpack(snakemake.input.get("archives", []), [snakemake.params.folder])
    path = fetch(entry, Path(snakemake.params.folder))
    pack(snakemake.output.get("archives", []), [path, record_path(path)])
