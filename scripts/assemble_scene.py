"""Assemble one scene, or a shard of patches, from the source (rules assemble_*)."""

from pathlib import Path

from unveil.config import SceneRow
from unveil.jobs import as_list, job
from unveil.masks.stage import MaskOptions, detect_clouds
from unveil.planning import assemble_row
from unveil.protocols import ProtocolSettings
from unveil.scene import save_scene

with job(snakemake.log[0]):
    params, output = snakemake.params, snakemake.output
    for outputs in (output.frames, output.sar, output.truth, output.masks):
        for folder in as_list(outputs):
            Path(folder).mkdir(parents=True, exist_ok=True)
    masks = MaskOptions(**params.detection)
    settings = ProtocolSettings(params.seed, masks.dilate_px)
    for row, path in zip(params.rows, as_list(output.scene), strict=True):
        scene = assemble_row(
            SceneRow(**row),
            params.sources,
            Path(path).parent,
            settings,
            detect=lambda reflectance, bands: detect_clouds(reflectance, bands, masks),
        )
        save_scene(scene, path)
