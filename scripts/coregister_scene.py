"""Find, record and where needed remove shifts between frames (rule coregister_scene)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.coregistration.coregister_scene import CoregistrationOptions, coregister_scene
from unveil.records import identify
from unveil.workflow.archives import pack, unpack
from unveil.workflow.job import job
from unveil.workflow.shards import (
    MASKS,
    READY,
    make_scenes,
    read_shard,
    recorded_scenes,
    scene_files,
)

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []), [snakemake.params.home])
    params = snakemake.params
    home = Path(params.home)
    options = CoregistrationOptions(**params.options)
    contents = recorded_scenes(snakemake.input.record)
    make_scenes(
        read_shard(snakemake.input.record, home, MASKS),
        lambda scene, folder: coregister_scene(scene, folder, options),
        made_from=lambda scene: identify(
            scene=contents[scene.id], options=dict(params.options), code=params.code
        ),
        home=home,
        file=READY,
        folders=("coregistered",),
        record=Path(snakemake.output.record),
        rule=snakemake.rule,
        at_once=snakemake.threads,
        archives=snakemake.output.get("archives", []),
    )
    # What is written of the scenes, without their imagery, for jobs that need all of them.
    pack(snakemake.output.get("facts", []), scene_files([snakemake.output.record], home))
