"""Score the predictions of one model on a shard of scenes (rule score)."""

import csv
import json
from pathlib import Path

from unveil import raster
from unveil.errors import InputError, SceneSkipped
from unveil.jobs import job
from unveil.metrics.aggregate import write_rows
from unveil.metrics.scoring import refuse_trained_places, score_scene
from unveil.provenance import intact, std_path
from unveil.scene import load_scene

with job(snakemake.log[0]) as log:
    model = snakemake.wildcards.model
    folder = Path(snakemake.params.predictions)
    scenes = {scene.id: scene for scene in map(load_scene, snakemake.input.scenes)}
    records = json.loads(Path(snakemake.input.record).read_text())["scenes"]
    rows, skipped = [], []
    for number, record in enumerate(records, 1):
        name = record["scene"]
        log.info("%s, %d of %d", name, number, len(records))
        if record["status"] == "skipped":
            skipped.append((name, model, "inference", record["reason"]))
            continue
        path = folder / record["file"]
        if not intact(record, folder):
            raise InputError(
                "it, or its standard deviations, is missing or not as the model wrote it",
                file=path,
                remedy=f"delete {snakemake.input.record} and run again",
            )
        refuse_trained_places(scenes[name], snakemake.params.weights)
        std = std_path(folder, name) if record["std_sha256"] else None
        try:
            rows += score_scene(scenes[name], path, model=model, std=std)
        except SceneSkipped as fact:
            skipped.append((name, model, "metrics", str(fact)))
    write_rows(rows, snakemake.output.metrics)
    with raster.replacing(snakemake.output.skipped) as temporary:
        with open(temporary, "w", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("scene", "model", "stage", "reason"))
            writer.writerows(skipped)
