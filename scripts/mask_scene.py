"""Detect cloud, shadow and snow in every frame of a shard's scenes (rule mask_scene)."""

from pathlib import Path

from unveil.jobs import job
from unveil.masks.stage import MaskOptions, mask_scene
from unveil.remote import unpack
from unveil.shards import DOWNLOAD, MASKS, content_of, make_scenes, read_shard

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []))
    params = snakemake.params
    home = Path(params.home)
    options = MaskOptions(**params.options)
    make_scenes(
        read_shard(snakemake.input.record, home, DOWNLOAD),
        lambda scene, folder: mask_scene(scene, folder, options),
        made_from=lambda scene: [
            content_of(home / scene.id / DOWNLOAD),
            dict(params.options),
            params.code,
        ],
        home=home,
        file=MASKS,
        folders=("masks",),
        record=Path(snakemake.output.record),
        at_once=snakemake.threads,
        archives=snakemake.output.get("archives", []),
    )
