"""Find, record and where needed remove shifts between frames (rule coregister_scene)."""

from pathlib import Path

from unveil.coregistration import CoregistrationOptions, coregister_scene
from unveil.jobs import job
from unveil.remote import pack, unpack
from unveil.shards import MASKS, READY, content_of, make_scenes, read_shard, scene_files

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []))
    params = snakemake.params
    home = Path(params.home)
    options = CoregistrationOptions(**params.options)
    make_scenes(
        read_shard(snakemake.input.record, home, MASKS),
        lambda scene, folder: coregister_scene(scene, folder, options),
        made_from=lambda scene: [
            content_of(home / scene.id / MASKS),
            dict(params.options),
            params.code,
        ],
        home=home,
        file=READY,
        folders=("coregistered",),
        record=Path(snakemake.output.record),
        at_once=snakemake.threads,
        archives=snakemake.output.get("archives", []),
    )
    # What is written of the scenes, without their imagery, for jobs that need all of them.
    pack(snakemake.output.get("facts", []), scene_files([snakemake.output.record], home))
