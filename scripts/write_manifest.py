"""Write down what ran, on what, with which weights and data (rule write_manifest)."""

from pathlib import Path

from unveil.jobs import job
from unveil.provenance import write_manifest
from unveil.remote import unpack
from unveil.scene import load_scene
from unveil.shards import scene_files

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []))
    write_manifest(
        snakemake.output[0],
        config=dict(snakemake.config),
        models=snakemake.params.models,
        scenes=[
            load_scene(path) for path in scene_files(snakemake.input.scenes, snakemake.params.home)
        ],
        records=[Path(path) for path in snakemake.input.records],
        command=snakemake.params.command,
    )
