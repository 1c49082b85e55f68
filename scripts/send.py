"""Pack input files for machines that cannot see them (rule send)."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.workflow.archives import pack
from unveil.workflow.job import job

with job(snakemake.log[0]):
    pack(snakemake.output, snakemake.params.files)
