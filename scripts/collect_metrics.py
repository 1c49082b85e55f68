"""Join the tables of all jobs (rule collect_metrics)."""

from unveil.jobs import job
from unveil.metrics.tables import SKIPPED_COLUMNS, collect

with job(snakemake.log[0]):
    collect(snakemake.input.metrics, snakemake.output.metrics)
    collect(snakemake.input.skipped, snakemake.output.skipped, columns=SKIPPED_COLUMNS)
