"""Run the models of a batch, one after another, on a shard of scenes (rule infer)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.inference.devices import visible_gpus
from unveil.inference.engine import InferenceOptions, run_shard, unanswered
from unveil.models.base import ModelSpec
from unveil.models.registry import create, is_own
from unveil.predictions import files_of_records
from unveil.records import read_record, write_record
from unveil.workflow.archives import pack, unpack, weights_files
from unveil.workflow.job import Failures, job
from unveil.workflow.measured import keep_cost
from unveil.workflow.shards import read_shard

with job(snakemake.log[0]) as log:
    params = snakemake.params
    unpack(snakemake.input.get("archives", []), [params.home, *weights_files(params.models)])
    given = ", ".join(visible_gpus()) or "none"
    log.info("GPUs asked for: %d, visible: %s", snakemake.resources.get("gpu", 0), given)
    scenes = list(read_shard(snakemake.input.scenes, params.home).values())
    # What decides no pixel is no parameter of the rule, so that changing it repeats nothing.
    machine = {key: snakemake.config["inference"][key] for key in ("tile_px", "memory_mb")}
    options = InferenceOptions(**params.options, **machine)
    records, failures = {}, Failures("model")
    models = dict(params.models)
    choice = snakemake.input.get("choice")  # of a product: the first model that answers
    if choice:
        order = read_record(choice, kind="a choice of models")["models"]
        models = {model: models[model] for model in order}
    for number, (model, row) in enumerate(models.items(), 1):
        log.info("%s: model %d of %d", model, number, len(params.models))
        with failures.collect(model):
            records[model] = run_shard(
                create(ModelSpec.from_row(model, row)),
                scenes,
                Path(params.predictions) / model,
                options,
                code=params.code[model],
                rule=snakemake.rule,
            )
            if is_own(row["kind"]):
                keep_cost(Path(params.costs), model, records[model], scenes, params.code[model])
        if choice:
            scenes = unanswered(scenes, records.get(model, []))
    failures.report()
    pack(snakemake.output.get("archives", []), files_of_records(records, Path(params.predictions)))
    write_record(Path(snakemake.output.record), {"models": records}, rule=snakemake.rule)
