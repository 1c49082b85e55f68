"""Compare the models over places, and write the published figures (rule compare_models)."""

from pathlib import Path

from unveil.jobs import job
from unveil.metrics.stage import write_statistics
from unveil.metrics.tables import TABLES
from unveil.remote import unpack
from unveil.shards import scene_files

with job(snakemake.log[0]):
    unpack(snakemake.input.archives)
    write_statistics(
        metrics=Path(snakemake.input.metrics),
        scenes=list(scene_files(snakemake.input.scenes, snakemake.params.home)),
        models=snakemake.params.models,
        cloud_levels=snakemake.params.cloud_levels,
        seed=snakemake.params.seed,
        outputs={name: Path(snakemake.output[name]) for name in TABLES},
    )
