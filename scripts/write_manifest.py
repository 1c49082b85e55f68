"""Write down what ran, on what, with which weights and data (rule write_manifest)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.scene import load_scene
from unveil.workflow.archives import unpack, weights_files
from unveil.workflow.job import job
from unveil.workflow.manifest import write_manifest
from unveil.workflow.shards import scene_files

with job(snakemake.log[0]):
    params = snakemake.params
    unpack(snakemake.input.get("archives", []), [params.home, *weights_files(params.models)])
    write_manifest(
        snakemake.output[0],
        config=dict(snakemake.config),
        models=snakemake.params.models,
        scenes=[
            load_scene(path) for path in scene_files(snakemake.input.scenes, snakemake.params.home)
        ],
        records=[Path(path) for path in snakemake.input.records],
        command=snakemake.params.command,
        rule=snakemake.rule,
    )
