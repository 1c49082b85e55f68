"""Inference: models remove the clouds, each batch of them in one job per shard."""

# Batches without a network have a rule of their own, so that a cluster's profile can send the
# others alone to the nodes with GPUs. The names stand in the path, as a store heeds no other
# constraint of a wildcard.
LEARNT = CANDIDATES if set(TABLES.candidates) & TABLES.networks else NETWORKS
WITH_NETWORKS = {*DIVISION.networks, NETWORKS, LEARNT, *with_networks(DIVISION)}
ON_GPU = names_of(WITH_NETWORKS)
ON_CPU = names_of(
    {*TABLES.models, METHODS, CANDIDATES, *DIVISION.batches} - WITH_NETWORKS
)


rule infer:
    """Run networks on a shard's scenes; asks for a GPU."""
    input:
        scenes=rules.coregister_scene.output.record,
        weights=lambda wildcards: seen(get_weights(wildcards)),
    output:
        # Predictions themselves are not declared: a pair that a model must skip has none.
        # The record names each with its checksum, and later stages verify it.
        record=f"<results>/inference/{{batch,{ON_GPU}}}/{{shard}}.json",
    log:
        "<logs>/infer/{batch}/{shard}.log",
    benchmark:
        "<benchmarks>/infer/{batch}/{shard}.tsv"
    conda:
        get_environment
    container:
        get_container
    threads: INFER_THREADS
    resources:
        gpu=0 if config["inference"]["gpu"] == "never" else 1,
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=4000,
    params:
        predictions=PREDICTIONS,
        costs=COSTS,
        home=HOME,
        models=get_options,
        code=get_code,
        options={
            key: config["inference"][key] for key in ("gpu", "backend", "precision")
        },
    message:
        "Removing clouds with {wildcards.batch}, {wildcards.shard}"
    script:
        "../scripts/infer.py"


use rule infer as infer_on_cpu with:
    """Run models that load no network on a shard's scenes."""
    output:
        record=f"<results>/inference/{{batch,{ON_CPU}}}/{{shard}}.json",
    resources:
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=4000,
