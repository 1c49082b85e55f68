"""Find, record and where needed remove shifts between frames (rule coregister_scene)."""

from pathlib import Path

from unveil.coregistration import CoregistrationOptions, coregister_scene
from unveil.jobs import job
from unveil.scene import load_scene, save_scene

with job(snakemake.log[0]):
    Path(snakemake.output.frames).mkdir(parents=True, exist_ok=True)
    options = CoregistrationOptions(**snakemake.params.options)
    scene = coregister_scene(
        load_scene(snakemake.input.scene), Path(snakemake.output.scene).parent, options
    )
    save_scene(scene, snakemake.output.scene)
