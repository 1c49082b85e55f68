"""Metrics: predictions scored against the truth, and models compared over places."""

LAND_COVER = config["metrics"]["land_cover"] or []
if LAND_COVER and SHARED:
    LAND_COVER = local(LAND_COVER)


rule score:
    """Score a batch's predictions of a shard's scenes."""
    input:
        scenes=rules.coregister_scene.output.record,
        record="<results>/inference/{batch}/{shard}.json",
        land_cover=LAND_COVER,
    output:
        metrics="<results>/metrics/{batch}/{shard}.csv",
        skipped="<results>/metrics/{batch}/{shard}.skipped.csv",
        checksums="<results>/metrics/{batch}/{shard}.sha256",
    log:
        "<logs>/score/{batch}/{shard}.log",
    benchmark:
        "<benchmarks>/score/{batch}/{shard}.tsv"
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=memory("score"),
        runtime=minutes("score"),
        disk_mb=100,
    params:
        predictions=PREDICTIONS,
        scores=SCORES,
        home=HOME,
        weights=lambda wildcards: {
            model: row.get("weights") for model, row in get_models(wildcards).items()
        },
        code=code_of("score"),
        land_cover_classes=config["metrics"]["land_cover_classes"],
    message:
        "Scoring {wildcards.batch}, {wildcards.shard}"
    script:
        "../scripts/score.py"


rule collect_metrics:
    """Join the scores and the skipped pairs of all jobs."""
    input:
        metrics=[f"<results>/metrics/{batch}/{shard}.csv" for batch, shard in JOBS],
        skipped=[
            f"<results>/metrics/{batch}/{shard}.skipped.csv" for batch, shard in JOBS
        ],
        checksums=[f"<results>/metrics/{batch}/{shard}.sha256" for batch, shard in JOBS],
    output:
        metrics=report(
            "<results>/metrics.csv",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "all metrics"},
        ),
        skipped=report(
            "<results>/skipped.csv",
            caption="../report/skipped.rst",
            category="Tables",
            labels={"table": "skipped pairs"},
        ),
        checksums="<results>/metrics.sha256",
    log:
        "<logs>/collect_metrics.log",
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(30),
        disk_mb=500,
    params:
        code=code_of("collect_metrics"),
    message:
        "Collecting the metrics of all models"
    script:
        "../scripts/collect_metrics.py"


rule compare_models:
    """Pool scores over places, rank the models and test their differences."""
    input:
        scenes=READY_SHARDS,
        metrics=rules.collect_metrics.output.metrics,
        checksums=rules.collect_metrics.output.checksums,
    output:
        pooled="<results>/statistics/pooled.csv",
        comparison=report(
            "<results>/statistics/comparison.csv",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "paired comparisons of models"},
        ),
        ranking=report(
            "<results>/statistics/ranking.csv",
            caption="../report/ranking.rst",
            category="Tables",
            labels={"table": "means and ranks over places"},
        ),
        strata="<results>/statistics/strata.csv",
        published=report(
            "<results>/statistics/published.csv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "as published, for comparison"},
        ),
        definitions="<results>/statistics/definitions.csv",
        checksums="<results>/statistics.sha256",
    log:
        "<logs>/compare_models.log",
    benchmark:
        "<benchmarks>/compare_models.tsv"
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(4000),
        runtime=doubling(60),
        disk_mb=100,
    params:
        home=HOME,
        code=code_of("compare_models"),
        models={model: row["kind"] for model, row in TABLES.models.items()},
        cloud_levels=config["metrics"]["cloud_levels"],
    message:
        "Comparing the models over places"
    script:
        "../scripts/compare_models.py"
