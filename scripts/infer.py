"""Run one model on a shard of scenes (rule infer)."""

import hashlib
import json
from pathlib import Path

from unveil import raster
from unveil.devices import visible_gpus
from unveil.inference import InferenceOptions, run_shard
from unveil.jobs import job
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.scene import load_scene

with job(snakemake.log[0]) as log:
    given = ", ".join(visible_gpus()) or "none"
    log.info("GPUs asked for: %d, visible: %s", snakemake.resources.get("gpu", 0), given)
    params = snakemake.params
    spec = ModelSpec.from_row(snakemake.wildcards.model, params.model)
    options = InferenceOptions(**params.options)
    records = run_shard(
        create(spec),
        [load_scene(path) for path in snakemake.input.scenes],
        Path(params.predictions),
        options,
        config_hash=hashlib.sha256(json.dumps(dict(params.options)).encode()).hexdigest(),
    )
    with raster.replacing(snakemake.output.record) as temporary:
        temporary.write_text(json.dumps({"model": spec.id, "scenes": records}, indent=1) + "\n")
