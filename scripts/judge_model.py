"""Say which checks a model keeps, and fail if it breaks one (rule check_model)."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.errors import InputError
from unveil.records import read_record
from unveil.workflow.job import job

with job(snakemake.log[0]) as log:
    found = read_record(snakemake.input.record, kind="a record of checks")
    broken = [check for check in found["checks"] if not check["passed"]]
    if broken:
        first = broken[0]
        raise InputError(
            f"breaks {len(broken)} of {len(found['checks'])} checks "
            f"({', '.join(check['check'] for check in broken)}); first: {first['found']}",
            file=found["kind"],
            field=first["check"],
            remedy=f"correct the model; all checks are in {snakemake.input.page}",
        )
    log.warning("%s keeps the contract: %s", found["model"], snakemake.input.page)
