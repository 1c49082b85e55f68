"""Score the predictions of a batch of models on a shard of scenes (rule score)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.metrics.shard import score_record
from unveil.metrics.strata import LandCover
from unveil.metrics.tables import write_rows, write_skipped
from unveil.records import made_of, read_record, record_checksums
from unveil.workflow.archives import unpack, weights_files
from unveil.workflow.job import Failures, job
from unveil.workflow.shards import read_shard, recorded_scenes

with job(snakemake.log[0]) as log:
    params = snakemake.params
    archives = [*snakemake.input.get("archives", []), *snakemake.input.get("predictions", [])]
    weights = {model: {"weights": path} for model, path in params.weights.items() if path}
    unpack(archives, [params.home, params.predictions, *weights_files(weights)])
    scenes = read_shard(snakemake.input.scenes, params.home)
    contents = recorded_scenes(snakemake.input.scenes)
    batch = read_record(snakemake.input.record, kind="an inference record")
    land_cover, stamp = None, None
    if snakemake.input.land_cover:
        path = Path(snakemake.input.land_cover)
        land_cover = LandCover(path, dict(params.land_cover_classes))
        stamp = [str(path), path.stat().st_size, path.stat().st_mtime_ns, land_cover.classes]
    rows, skipped, failures = [], [], Failures("model")
    for model, records in batch["models"].items():
        with failures.collect(model):
            for number, record in enumerate(records, 1):
                scene = scenes[record["scene"]]
                log.info("%s, %s, %d of %d", model, scene.id, number, len(records))
                scored, reason = score_record(
                    scene,
                    record,
                    model=model,
                    predictions=Path(params.predictions) / model,
                    scores=Path(params.scores) / model,
                    weights=params.weights[model],
                    land_cover=land_cover,
                    made_from={
                        "scene": contents[scene.id],
                        "land_cover": stamp,
                        "code": params.code,
                    },
                    predicted_by=made_of(batch)["by"],
                )
                rows += scored
                skipped += [reason] if reason else []
    failures.report()
    write_rows(rows, snakemake.output.metrics)
    write_skipped(skipped, snakemake.output.skipped)
    tables = [snakemake.output.metrics, snakemake.output.skipped]
    record_checksums(snakemake.output.checksums, tables, rule=snakemake.rule)
