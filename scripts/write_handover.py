"""Write what somebody else's system needs to answer, and no truth (rule write_handover)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.deliveries.handover import write_handover
from unveil.workflow.job import job
from unveil.workflow.shards import read_shard

with job(snakemake.log[0]):
    scenes = (
        scene
        for record in snakemake.input.scenes
        for scene in read_shard(record, snakemake.params.home).values()
    )
    write_handover(scenes, Path(snakemake.output.requests).parent)
