rule infer:
    input:
        scenes=rules.coregister_scene.output.record,
        weights=get_weights,
    output:
        # Predictions themselves are not declared: a pair that a model must skip has none.
        # The record names each with its checksum, and later stages verify it.
        record=f"{RESULTS}/inference/{{batch}}/{{shard}}.json",
    log:
        f"{RESULTS}/logs/infer/{{batch}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/infer/{{batch}}/{{shard}}.tsv"
    conda:
        "../envs/inference.yaml"
    threads: 2
    resources:
        gpu=get_gpus,
        mem_mb=config["inference"]["memory_mb"],
        runtime=240,
        disk_mb=4000,
    params:
        predictions=f"{RESULTS}/predictions",
        home=HOME,
        models=get_models,
        code=code("models", "weights", "inference", "devices", "shards"),
        options=lambda wildcards: {
            key: config["inference"][key]
            for key in ("tile_px", "memory_mb", "gpu", "backend", "precision")
        },
    message:
        "Removing clouds with {wildcards.batch}, {wildcards.shard}"
    script:
        "../scripts/infer.py"
