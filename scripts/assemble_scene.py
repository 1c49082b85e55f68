"""Assemble the scenes of a shard from their sources (rule assemble_scene)."""

from dataclasses import asdict
from pathlib import Path

from unveil import raster
from unveil.config import SceneRow
from unveil.jobs import job
from unveil.masks.stage import MaskOptions, detect_clouds
from unveil.planning import assemble_row
from unveil.protocols import ProtocolSettings
from unveil.shards import DOWNLOAD, make_scenes
from unveil.sources import input_stamps
from unveil.sources.locks import lock_path, ranges_folder
from unveil.workflow.archives import unpack

with job(snakemake.log[0]):
    params = snakemake.params
    sources = dict(params.sources)
    inputs = [row[key] for row in params.rows for key in ("path", "area") if row[key]]
    locks = [sources["stac"]["locks"]] if "stac" in sources else []
    unpack(snakemake.input.archives, [*inputs, *locks])
    for archive in snakemake.input.fetched:
        from unveil.remote.cache_archive import take_fetched  # loads what speaks HTTP

        take_fetched(Path(archive), ranges_folder(sources["stac"]))
    masks = MaskOptions(**params.detection)
    settings = ProtocolSettings(params.seed, masks.dilate_px)

    def made_from(row):
        """Give everything that a scene depends on."""
        searched = row.source == "stac"
        lock = raster.sha256(lock_path(row.scene, sources["stac"])) if searched else ""
        given = [sources, asdict(settings), dict(params.detection), params.code]
        return [asdict(row), input_stamps(row), lock, *given]

    make_scenes(
        {row["scene"]: SceneRow(**row) for row in params.rows},
        lambda row, home: assemble_row(
            row,
            sources,
            home,
            settings,
            detect=lambda reflectance, bands: detect_clouds(reflectance, bands, masks),
        ),
        made_from=made_from,
        home=Path(params.home),
        file=DOWNLOAD,
        folders=("frames", "sar", "truth", "source_masks"),
        record=Path(snakemake.output.record),
        at_once=snakemake.threads,
        archives=snakemake.output.archives,
    )
