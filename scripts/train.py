"""Train one network and write its weights and card (rule train_network)."""

from pathlib import Path

from unveil.jobs import job

with job(snakemake.log[0]):
    from unveil.training.run import set_threads, train_run

    set_threads(snakemake.threads)
    params = snakemake.params
    train_run(
        params.run,
        sources=params.sources,
        paths=dict(zip(params.sources, map(Path, snakemake.input.images), strict=True)),
        weights=Path(snakemake.output.weights),
        command=params.command,
    )
