"""Run the models of a batch, one after another, on a shard of scenes (rule infer)."""

import hashlib
import json
from pathlib import Path

from unveil import raster
from unveil.devices import visible_gpus
from unveil.inference import InferenceOptions, run_shard
from unveil.jobs import Failures, job
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.provenance import prediction_files
from unveil.remote import pack, unpack
from unveil.shards import read_shard

with job(snakemake.log[0]) as log:
    unpack(snakemake.input.get("archives", []))
    given = ", ".join(visible_gpus()) or "none"
    log.info("GPUs asked for: %d, visible: %s", snakemake.resources.get("gpu", 0), given)
    params = snakemake.params
    scenes = list(read_shard(snakemake.input.scenes, params.home).values())
    records, failures = {}, Failures("model")
    for model, row in params.models.items():
        with failures.collect(model):
            records[model] = run_shard(
                create(ModelSpec.from_row(model, row)),
                scenes,
                Path(params.predictions) / model,
                InferenceOptions(**params.options),
                config_hash=hashlib.sha256(json.dumps(dict(params.options)).encode()).hexdigest(),
            )
    failures.report()
    pack(snakemake.output.get("archives", []), prediction_files(records, Path(params.predictions)))
    with raster.replacing(snakemake.output.record) as temporary:
        temporary.write_text(json.dumps({"models": records}, indent=1) + "\n")
