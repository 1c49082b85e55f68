"""Pack input files for machines that cannot see them (rule send)."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.workflow.archives import pack
from unveil.workflow.job import job

with job(snakemake.log[0]):
    pack(snakemake.output, snakemake.params.files)
