"""Join the tables of all jobs (rule collect_metrics)."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.metrics.tables import SKIPPED_COLUMNS, collect
from unveil.records import record_checksums, require_recorded
from unveil.workflow.job import job

with job(snakemake.log[0]):
    given, made = snakemake.input, snakemake.output
    for checksums, *tables in zip(given.checksums, given.metrics, given.skipped, strict=True):
        require_recorded(checksums, tables)
    collect(given.metrics, made.metrics)
    collect(given.skipped, made.skipped, columns=SKIPPED_COLUMNS)
    record_checksums(made.checksums, [made.metrics, made.skipped], rule=snakemake.rule)
