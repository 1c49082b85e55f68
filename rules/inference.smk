# A rule of its own for models without a network, so that a cluster's profile can send the
# others alone to the nodes with GPUs.
rule infer:
    input:
        scenes=get_shard_scenes,
        weights=get_weights,
        code=code("models", "weights", "inference", "devices"),
    output:
        # Predictions themselves are not declared: a pair that a model must skip has none.
        # The record names each with its checksum, and later stages verify it.
        record=f"{RESULTS}/inference/{one_of(NETWORKS)}/{{shard}}.json",
    log:
        f"{RESULTS}/logs/infer/{{model}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/infer/{{model}}/{{shard}}.tsv"
    conda:
        "../envs/inference.yaml"
    threads: 2
    resources:
        gpu=0 if config["inference"]["gpu"] == "never" else 1,
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=4000,
    params:
        predictions=lambda wildcards: f"{RESULTS}/predictions/{wildcards.model}",
        model=get_model_row,
        options=lambda wildcards: {
            key: config["inference"][key]
            for key in ("tile_px", "memory_mb", "gpu", "backend", "precision")
        },
    message:
        "Removing clouds with {wildcards.model}, {wildcards.shard}"
    script:
        "../scripts/infer.py"


use rule infer as infer_on_cpu with:
    output:
        record=f"{RESULTS}/inference/{one_of(set(MODELS) - NETWORKS)}/{{shard}}.json",
    resources:
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=4000,
