"""Judge what was delivered for every scene (rule judge_delivery)."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil import raster
from unveil.deliveries.check import check_delivery, summary
from unveil.models.base import ModelSpec
from unveil.models.external import External
from unveil.workflow.job import job
from unveil.workflow.shards import read_shard

with job(snakemake.log[0]):
    params = snakemake.params
    model = External(ModelSpec.from_row(snakemake.wildcards.model, dict(params.row)))
    table = check_delivery(
        model,
        (
            scene
            for record in snakemake.input.scenes
            for scene in read_shard(record, params.home).values()
        ),
    )
    with raster.replacing(Path(snakemake.output.table)) as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.4f")
    logging.getLogger("unveil").warning(
        "%s: %s (%s)", snakemake.wildcards.model, summary(table), snakemake.output.table
    )
