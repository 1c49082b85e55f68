"""Write where each scene of the run stands (rule list_scenes)."""

import json
from pathlib import Path

from unveil.jobs import job
from unveil.workflow.overview import write_overview

with job(snakemake.log[0]):
    scenes = map(Path, snakemake.input.scenes)
    write_overview(
        Path(snakemake.output.scenes),
        {path.parent.name: list(json.loads(path.read_text())) for path in scenes},
        records=map(Path, snakemake.input.records),
        skipped=map(Path, snakemake.input.skipped),
        logs=snakemake.params.logs,
    )
