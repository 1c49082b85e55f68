"""Find, record and where needed remove shifts between frames (rules coregister_*)."""

from pathlib import Path

from unveil.coregistration import CoregistrationOptions, coregister_scene
from unveil.jobs import as_list, job
from unveil.scene import load_scene, save_scene

with job(snakemake.log[0]):
    options = CoregistrationOptions(**snakemake.params.options)
    for folder in as_list(snakemake.output.frames):
        Path(folder).mkdir(parents=True, exist_ok=True)
    for source, path in zip(
        as_list(snakemake.input.scene), as_list(snakemake.output.scene), strict=True
    ):
        save_scene(coregister_scene(load_scene(source), Path(path).parent, options), path)
