"""Run the contract's checks on one model, and time it (rule check_one_model)."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.inference.contract import Case, draw_scene_for, measure, run_checks
from unveil.inference.engine import InferenceOptions
from unveil.machine import hardware, versions
from unveil.models.base import ModelSpec
from unveil.models.registry import create, is_own
from unveil.records import write_record
from unveil.workflow.job import job
from unveil.workflow.measured import keep_cost

with job(snakemake.log[0]) as log:
    params, model = snakemake.params, snakemake.wildcards.model
    spec = ModelSpec.from_row(model, params.row)
    options = InferenceOptions(**params.options)
    created = create(spec)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene = draw_scene_for(created.needs, folder / "checked")
        checks = run_checks(Case(spec, scene, options))
        for check in checks:
            log.info("%s: %s, %s", check["check"], "kept" if check["passed"] else "BROKEN", check)
        run = None
        if all(check["passed"] for check in checks):
            run, timed = measure(spec, folder, options, code=params.code)
            if is_own(spec.kind):
                keep_cost(Path(params.costs), model, [run], [timed], params.code)
    document = {
        "model": model,
        "title": spec.title,
        "kind": spec.kind,
        "citation": created.citation,
        "origin": created.origin,
        "network": created.network,
        "needs": vars(created.needs),
        "checks": checks,
        "run": run,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_record(Path(snakemake.output.record), document, rule=snakemake.rule)
