"""Write the page of a model's checks (rule render_check)."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil import raster
from unveil.records import read_record
from unveil.report.check import render_check
from unveil.workflow.job import job

with job(snakemake.log[0]):
    found = read_record(snakemake.input.record, kind="a record of checks")
    with raster.replacing(snakemake.output.page) as temporary:
        temporary.write_text(render_check(found), encoding="utf-8")
