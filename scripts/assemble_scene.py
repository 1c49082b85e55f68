"""Assemble the scenes of a shard from their sources (rule assemble_scene)."""

from dataclasses import asdict
from pathlib import Path

from unveil.config import SceneRow
from unveil.jobs import job
from unveil.protocols import ProtocolSettings, assemble
from unveil.shards import DOWNLOAD, make_scenes
from unveil.sources import input_stamps, open_source

with job(snakemake.log[0]):
    params = snakemake.params
    settings = ProtocolSettings(params.seed, params.dilate_px)
    make_scenes(
        {row["scene"]: SceneRow(**row) for row in params.rows},
        lambda row, home: assemble(row, open_source(row, params.sources), home, settings),
        made_from=lambda row: (
            [asdict(row), input_stamps(row), dict(params.sources)] + [asdict(settings), params.code]
        ),
        home=Path(params.home),
        file=DOWNLOAD,
        folders=("frames", "sar", "truth", "source_masks"),
        record=Path(snakemake.output.record),
    )
