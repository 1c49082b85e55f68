# On two cores one job computes while the other starts TensorFlow, which takes one core.
TWO_CORES = workflow.resource_settings.cores == 2 and not workflow.remote_exec
INFER_THREADS = 1 if TWO_CORES else 2


# Batches without a network have a rule of their own, so that a cluster's profile can send the
# others alone to the nodes with GPUs.
rule infer:
    input:
        scenes=rules.coregister_scene.output.record,
        weights=get_weights if SHARED else [],
        archives=get_archives,
    output:
        # Predictions themselves are not declared: a pair that a model must skip has none.
        # The record names each with its checksum, and later stages verify it.
        record=f"{RESULTS}/inference/{one_of([*RUNNING_NETWORKS, '_networks'])}/{{shard}}.json",
        archives=carried(
            f"inference/{one_of([*RUNNING_NETWORKS, '_networks'])}/{{shard}}.tar"
        ),
    log:
        f"{RESULTS}/logs/infer/{{batch}}/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/infer/{{batch}}/{{shard}}.tsv"
    conda:
        "../envs/inference.yaml"
    threads: INFER_THREADS
    resources:
        gpu=0 if config["inference"]["gpu"] == "never" else 1,
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=disk(4000),
    params:
        predictions=PREDICTIONS,
        home=HOME,
        models=get_options,
        code=get_code,
        options=lambda wildcards: {
            key: config["inference"][key] for key in ("gpu", "backend", "precision")
        },
    message:
        "Removing clouds with {wildcards.batch}, {wildcards.shard}"
    script:
        "../scripts/infer.py"


use rule infer as infer_on_cpu with:
    output:
        record=f"{RESULTS}/inference/{one_of(set(METHODS) | {'_methods'})}/{{shard}}.json",
        archives=carried(
            f"inference/{one_of(set(METHODS) | {'_methods'})}/{{shard}}.tar"
        ),
    resources:
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=disk(4000),
