"""Choose the models that make a product's images (rule choose_model)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.cloudfree.choice import choose, read_ranking, read_scores
from unveil.records import require_recorded, write_record
from unveil.workflow.job import job

with job(snakemake.log[0]) as log:
    params, given = snakemake.params, snakemake.input
    for table, checksums in zip(given.metrics, given.checksums, strict=True):
        require_recorded(checksums, [table, table.replace(".csv", ".skipped.csv")])
    choice = choose(
        params.wish,
        params.candidates,
        read_scores(given.metrics, dict(params.dates)),
        read_ranking(params.ranking),
    )
    log.info("%s: %s (%s)", snakemake.wildcards.product, choice.models[0], choice.basis)
    write_record(Path(snakemake.output.record), choice.facts, rule=snakemake.rule)
