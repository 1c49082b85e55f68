rule score:
    input:
        scenes=get_shard_scenes,
        record=f"{RESULTS}/inference/{{model}}/{{shard}}.json",
        code=code("metrics"),
    output:
        metrics=f"{RESULTS}/metrics/{{model}}/{{shard}}.csv",
        skipped=f"{RESULTS}/metrics/{{model}}/{{shard}}.skipped.csv",
    log:
        f"{RESULTS}/logs/score/{{model}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score/{{model}}/{{shard}}.tsv"
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=memory("score"),
        runtime=minutes("score"),
        disk_mb=100,
    params:
        predictions=lambda wildcards: f"{RESULTS}/predictions/{wildcards.model}",
        weights=lambda wildcards: MODELS[wildcards.model].get("weights"),
    message:
        "Scoring {wildcards.model}, {wildcards.shard}"
    script:
        "../scripts/score.py"


rule collect_metrics:
    input:
        # not the outputs of the rule: in a store they are more than patterns
        metrics=collect(
            f"{RESULTS}/metrics/{{model}}/{{shard}}.csv", model=MODELS, shard=SHARDS
        ),
        skipped=collect(
            f"{RESULTS}/metrics/{{model}}/{{shard}}.skipped.csv",
            model=MODELS,
            shard=SHARDS,
        ),
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
        scenes=ALL_SCENES,
        metrics=rules.collect_metrics.output.metrics,
        code=code("metrics"),
    output:
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
        days=f"{RESULTS}/statistics/days.csv",
        published=report(
            f"{RESULTS}/statistics/published.csv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "as published, for comparison"},
        ),
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
        cloud_levels=config["metrics"]["cloud_levels"],
        seed=config["seed"],
    message:
        "Comparing the models over places"
    script:
        "../scripts/compare_models.py"
