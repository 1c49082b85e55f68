rule infer:
    input:
        scenes=get_shard_scenes,
        weights=get_weights,
        code=code("models", "weights", "inference", "devices"),
    output:
        # Predictions themselves are not declared: a pair that a model must skip has none.
        # The record names each with its checksum, and later stages verify it.
        record=f"{RESULTS}/inference/{{model}}/{{shard}}.json",
    log:
        f"{RESULTS}/logs/infer/{{model}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/infer/{{model}}/{{shard}}.tsv"
    conda:
        "../envs/inference.yaml"
    threads: 2
    resources:
        gpu=get_gpus,
        mem_mb=config["inference"]["memory_mb"],
        runtime=240,
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
