"""Assemble the scenes of a shard from their sources (rule assemble_scene)."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.assembly.assemble import assemble_row
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.config import SceneRow
from unveil.masks.mask_scene import detect_clouds, judge_frame, why_unjudged
from unveil.records import identify
from unveil.sources.registry import source_of
from unveil.sources.stac.lock import ranges_folder
from unveil.workflow.archives import unpack
from unveil.workflow.job import job
from unveil.workflow.shards import DOWNLOAD, make_scenes

with job(snakemake.log[0]):
    params = snakemake.params
    sources = dict(params.sources)
    settings_of_sources = {**sources, "cache": params.cache}
    inputs = [row[key] for row in params.rows for key in ("path", "area") if row[key]]
    locks = [sources["stac"]["locks"]] if "stac" in sources else []
    unpack(snakemake.input.get("archives", []), [*inputs, *locks])
    for archive in snakemake.input.get("fetched", []):
        from unveil.remote.cache_archive import take_fetched  # loads what speaks HTTP

        take_fetched(Path(archive), ranges_folder(sources["stac"]))
    settings = ProtocolSettings(params.seed)

    def made_from(row):
        """Give the identity of a scene: everything that it depends on."""
        return identify(
            row=asdict(row),
            input=source_of(row).made_from(row, settings_of_sources),
            options=[sources, asdict(settings)],
            code=params.code,
        )

    make_scenes(
        {row["scene"]: SceneRow(**row) for row in params.rows},
        lambda row, home: assemble_row(
            row,
            settings_of_sources,
            home,
            settings,
            detect=detect_clouds,
            refusal=why_unjudged,
            judge=judge_frame,
        ),
        made_from=made_from,
        home=Path(params.home),
        file=DOWNLOAD,
        folders=("frames", "sar", "truth", "source_masks"),
        record=Path(snakemake.output.record),
        rule=snakemake.rule,
        at_once=snakemake.threads,
        archives=snakemake.output.get("archives", []),
    )
