"""Detect cloud, shadow and snow in every frame of a scene (rule mask_scene)."""

from pathlib import Path

from unveil.jobs import job
from unveil.masks.stage import MaskOptions, mask_scene
from unveil.scene import load_scene, save_scene

with job(snakemake.log[0]):
    Path(snakemake.output.masks).mkdir(parents=True, exist_ok=True)
    options = MaskOptions(**snakemake.params.options)
    scene = mask_scene(
        load_scene(snakemake.input.scene), Path(snakemake.output.scene).parent, options
    )
    save_scene(scene, snakemake.output.scene)
