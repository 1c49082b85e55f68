"""Write where each scene of the run stands (rule list_scenes)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.workflow.job import job
from unveil.workflow.overview import write_overview
from unveil.workflow.shards import recorded_scenes

with job(snakemake.log[0]):
    scenes = map(Path, snakemake.input.scenes)
    write_overview(
        Path(snakemake.output.scenes),
        {path.parent.name: list(recorded_scenes(path)) for path in scenes},
        records=map(Path, snakemake.input.records),
        skipped=map(Path, snakemake.input.skipped),
        logs=snakemake.params.logs,
    )
