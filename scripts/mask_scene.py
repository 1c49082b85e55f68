"""Detect cloud, shadow and snow in every frame of a scene or shard (rules mask_*)."""

from pathlib import Path

from unveil.jobs import as_list, job
from unveil.masks.stage import MaskOptions, mask_scene
from unveil.scene import load_scene, save_scene

with job(snakemake.log[0]):
    options = MaskOptions(**snakemake.params.options)
    for folder in as_list(snakemake.output.masks):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for source, path in zip(
        as_list(snakemake.input.scene), as_list(snakemake.output.scene), strict=True
    ):
        save_scene(mask_scene(load_scene(source), Path(path).parent, options), path)
