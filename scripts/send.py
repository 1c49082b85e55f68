"""Pack input files for machines that cannot see them (rule send)."""

from unveil.jobs import job
from unveil.workflow.archives import pack

with job(snakemake.log[0]):
    pack(snakemake.output, snakemake.params.files)
