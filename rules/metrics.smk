rule score:
    message:
        "Scoring {wildcards.model}, {wildcards.shard}"
    input:
        scenes=get_shard_scenes,
        record=rules.infer.output.record,
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
        mem_mb=4000,
        runtime=120,
        disk_mb=100,
    params:
        predictions=lambda wildcards: f"{RESULTS}/predictions/{wildcards.model}",
        weights=lambda wildcards: MODELS[wildcards.model].get("weights"),
    script:
        "../scripts/score.py"


rule collect_metrics:
    message:
        "Collecting the metrics of all models"
    input:
        metrics=collect(
            rules.score.output.metrics, model=list(MODELS), shard=list(SHARDS)
        ),
        skipped=collect(
            rules.score.output.skipped, model=list(MODELS), shard=list(SHARDS)
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
        mem_mb=2000,
        runtime=30,
        disk_mb=500,
    script:
        "../scripts/collect_metrics.py"
