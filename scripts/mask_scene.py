"""Find cloud, shadow, snow and veil in every frame of a shard's scenes (rule mask_scene)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.masks.mask_scene import MaskOptions, mask_scene
from unveil.records import identify
from unveil.workflow.archives import unpack
from unveil.workflow.job import job
from unveil.workflow.shards import DOWNLOAD, MASKS, make_scenes, read_shard, recorded_scenes

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []), [snakemake.params.home])
    params = snakemake.params
    home = Path(params.home)
    options = MaskOptions(**params.options)
    contents = recorded_scenes(snakemake.input.record)
    make_scenes(
        read_shard(snakemake.input.record, home, DOWNLOAD),
        lambda scene, folder: mask_scene(scene, folder, options),
        made_from=lambda scene: identify(
            scene=contents[scene.id], options=dict(params.options), code=params.code
        ),
        home=home,
        file=MASKS,
        folders=("masks", "veils"),
        record=Path(snakemake.output.record),
        rule=snakemake.rule,
        at_once=snakemake.threads,
        archives=snakemake.output.get("archives", []),
    )
