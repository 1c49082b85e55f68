"""Train one network and write its weights and card (rule train_network)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.workflow.job import job

with job(snakemake.log[0]):
    from unveil.training.run import set_threads, train_run

    set_threads(snakemake.threads)
    params = snakemake.params
    train_run(
        params.run,
        sources=params.sources,
        paths=dict(zip(params.sources, map(Path, snakemake.input.images), strict=True)),
        weights=Path(snakemake.output.weights),
        command=params.command,
    )
