"""Compare the models over places, and write the published figures (rule compare_models)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.metrics.stage import write_statistics
from unveil.metrics.tables import TABLES
from unveil.records import record_checksums, require_recorded
from unveil.workflow.archives import unpack
from unveil.workflow.job import job
from unveil.workflow.shards import scene_files

with job(snakemake.log[0]):
    unpack(snakemake.input.get("archives", []), [snakemake.params.home])
    require_recorded(snakemake.input.checksums, [snakemake.input.metrics])
    outputs = {name: Path(snakemake.output[name]) for name in TABLES}
    write_statistics(
        metrics=Path(snakemake.input.metrics),
        scenes=list(scene_files(snakemake.input.scenes, snakemake.params.home)),
        models=snakemake.params.models,
        cloud_levels=snakemake.params.cloud_levels,
        outputs=outputs,
    )
    record_checksums(snakemake.output.checksums, outputs.values(), rule=snakemake.rule)
