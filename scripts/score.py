"""Score the predictions of a batch of models on a shard of scenes (rule score)."""

import json
from pathlib import Path

from unveil.jobs import Failures, job
from unveil.metrics.shard import score_record
from unveil.metrics.strata import LandCover
from unveil.metrics.tables import write_rows, write_skipped
from unveil.remote import unpack
from unveil.shards import read_shard

with job(snakemake.log[0]) as log:
    unpack([*snakemake.input.get("archives", []), *snakemake.input.get("predictions", [])])
    params = snakemake.params
    scenes = read_shard(snakemake.input.scenes, params.home)
    contents = json.loads(Path(snakemake.input.scenes).read_text())
    batch = json.loads(Path(snakemake.input.record).read_text())["models"]
    land_cover, stamp = None, None
    if snakemake.input.land_cover:
        path = Path(snakemake.input.land_cover)
        land_cover = LandCover(path, dict(params.land_cover_classes))
        stamp = [str(path), path.stat().st_size, path.stat().st_mtime_ns, land_cover.classes]
    rows, skipped, failures = [], [], Failures("model")
    for model, records in batch.items():
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
                    made_from=[contents[scene.id], stamp, params.code],
                )
                rows += scored
                skipped += [reason] if reason else []
    failures.report()
    write_rows(rows, snakemake.output.metrics)
    write_skipped(skipped, snakemake.output.skipped)
