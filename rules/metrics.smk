rule score:
    input:
        scenes=rules.coregister_scene.output.record,
        record=f"{RESULTS}/inference/{{batch}}/{{shard}}.json",
        land_cover=config["metrics"]["land_cover"] or [],
        archives=get_archives,
        predictions=carried("inference/{batch}/{shard}.tar"),
    output:
        metrics=f"{RESULTS}/metrics/{{batch}}/{{shard}}.csv",
        skipped=f"{RESULTS}/metrics/{{batch}}/{{shard}}.skipped.csv",
    log:
        f"{RESULTS}/logs/score/{{batch}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score/{{batch}}/{{shard}}.tsv"
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=memory("score"),
        runtime=minutes("score"),
        disk_mb=disk(100),
    params:
        predictions=f"{RESULTS}/predictions",
        scores=f"{RESULTS}/scores",
        home=HOME,
        weights=lambda wildcards: {
            model: row.get("weights") for model, row in get_models(wildcards).items()
        },
        code=code("metrics", "provenance", "shards"),
        land_cover_classes=config["metrics"]["land_cover_classes"],
    message:
        "Scoring {wildcards.batch}, {wildcards.shard}"
    script:
        "../scripts/score.py"


rule collect_metrics:
    input:
        metrics=[f"{RESULTS}/metrics/{batch}/{shard}.csv" for batch, shard in JOBS],
        skipped=[
            f"{RESULTS}/metrics/{batch}/{shard}.skipped.csv" for batch, shard in JOBS
        ],
    output:
        metrics=report(
            f"{RESULTS}/metrics.csv",
            caption="../report/metrics.rst",
            category="Tables",
            labels={"table": "all metrics"},
        ),
        skipped=report(
            f"{RESULTS}/skipped.csv",
            caption="../report/skipped.rst",
            category="Tables",
            labels={"table": "skipped pairs"},
        ),
    log:
        f"{RESULTS}/logs/collect_metrics.log",
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(30),
        disk_mb=500,
    message:
        "Collecting the metrics of all models"
    script:
        "../scripts/collect_metrics.py"


rule compare_models:
    input:
        scenes=READY_SHARDS,
        archives=FACTS,
        metrics=rules.collect_metrics.output.metrics,
    output:
        pooled=f"{RESULTS}/statistics/pooled.csv",
        comparison=report(
            f"{RESULTS}/statistics/comparison.csv",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "paired comparisons of models"},
        ),
        ranking=report(
            f"{RESULTS}/statistics/ranking.csv",
            caption="../report/ranking.rst",
            category="Tables",
            labels={"table": "means and ranks over places"},
        ),
        strata=f"{RESULTS}/statistics/strata.csv",
        published=report(
            f"{RESULTS}/statistics/published.csv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "as published, for comparison"},
        ),
        definitions=f"{RESULTS}/statistics/definitions.csv",
    log:
        f"{RESULTS}/logs/compare_models.log",
    benchmark:
        f"{RESULTS}/benchmarks/compare_models.tsv"
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(4000),
        runtime=doubling(60),
        disk_mb=100,
    params:
        home=HOME,
        code=code("metrics"),
        models={model: row["kind"] for model, row in MODELS.items()},
        cloud_levels=config["metrics"]["cloud_levels"],
        seed=config["seed"],
    message:
        "Comparing the models over places"
    script:
        "../scripts/compare_models.py"
