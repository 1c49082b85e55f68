"""Write where each scene of the run stands (rule list_scenes)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.records import read_record, require_recorded
from unveil.workflow.job import job
from unveil.workflow.overview import write_overview
from unveil.workflow.shards import recorded_scenes

with job(snakemake.log[0]):
    given = snakemake.input
    for record in given.records:
        read_record(record, kind="an inference record")
    for checksums, skipped in zip(given.checksums, given.skipped, strict=True):
        require_recorded(checksums, [skipped])
    scenes = map(Path, given.scenes)
    write_overview(
        Path(snakemake.output.scenes),
        {path.parent.name: list(recorded_scenes(path)) for path in scenes},
        records=map(Path, given.records),
        skipped=map(Path, given.skipped),
        logs=snakemake.params.logs,
    )
