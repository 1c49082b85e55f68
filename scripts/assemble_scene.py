"""Assemble one scene from its source (rule assemble_scene)."""

from pathlib import Path

from unveil.config import SceneRow
from unveil.jobs import job
from unveil.protocols import ProtocolSettings, assemble
from unveil.scene import save_scene
from unveil.sources import open_source, settle

with job(snakemake.log[0]):
    params, output = snakemake.params, snakemake.output
    for folder in (output.frames, output.sar, output.truth, output.masks):
        Path(folder).mkdir(parents=True, exist_ok=True)
    row = settle(SceneRow(**params.row), params.sources)
    settings = ProtocolSettings(params.seed, params.dilate_px)
    scene = assemble(row, open_source(row, params.sources), Path(output.scene).parent, settings)
    save_scene(scene, output.scene)
