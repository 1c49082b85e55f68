"""Training: what the shipped networks were trained on and how; never part of a usual run."""


wildcard_constraints:
    image=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    series=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    run=r"[A-Za-z0-9][A-Za-z0-9._-]*",


rule fetch_training_data:
    """Fetch one clear image for training."""
    output:
        image="<results>/training/images/{image}.tif",
    log:
        "<logs>/fetch_training_data/{image}.log",
    retries: 2
    conda:
        "../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        disk_mb=1000,
    params:
        facts=lambda wildcards: TABLES.training["images"][wildcards.image],
        code=code_of("fetch_training_data"),
        cache=f"{config['cache']}/packages",
    message:
        "Fetching the clear image {wildcards.image}"
    script:
        "../scripts/fetch_training_data.py"


rule fetch_training_series:
    """Fetch one series for training."""
    input:
        files=get_series_files,
    output:
        series="<results>/training/series/{series}.npz",
    log:
        "<logs>/fetch_training_series/{series}.log",
    retries: 2
    conda:
        "../envs/training.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        disk_mb=1000,
    params:
        facts=lambda wildcards: TABLES.training["series"][wildcards.series],
        code=code_of("fetch_training_series"),
        cache=f"{config['cache']}/packages",
    message:
        "Fetching the series {wildcards.series}"
    script:
        "../scripts/fetch_training_series.py"


rule train_network:
    """Train one network and write its weights and card."""
    input:
        images=get_training_images,
    output:
        # The checkpoint beside them is not declared: a killed run resumes from it.
        weights="<results>/training/{run}/{run}.npz",
        card="<results>/training/{run}/{run}.json",
    log:
        "<logs>/train_network/{run}.log",
    benchmark:
        "<benchmarks>/train_network/{run}.tsv"
    conda:
        "../envs/training.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=doubling(6000),
        runtime=doubling(720),
        disk_mb=2000,
    params:
        run=lambda wildcards: TABLES.training["runs"][wildcards.run],
        code=code_of("train"),
        sources=get_training_sources,
        command="snakemake train",
    message:
        "Training {wildcards.run}"
    script:
        "../scripts/train.py"


rule train:
    """Train the networks that config/training.yaml names under 'run'."""

    # To ship what was trained:  cp results/training/ID/ID.{npz,json} resources/weights/
    input:
        expand("<results>/training/{run}/{run}.npz", run=TABLES.training["run"]),
