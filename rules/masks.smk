"""Masks: the classes of every pixel, and how sure the detectors are."""


rule mask_scene:
    """Find cloud, shadow and snow in every frame of a shard's scenes."""
    input:
        record=rules.assemble_scene.output.record,
    output:
        record="<results>/shards/{shard}/masks.json",
    log:
        "<logs>/mask_scene/{shard}.log",
    benchmark:
        "<benchmarks>/mask_scene/{shard}.tsv"
    conda:
        "../envs/masks.yaml"
    threads: 4
    resources:
        mem_mb=memory("mask_scene"),
        runtime=minutes("mask_scene"),
        disk_mb=1000,
    params:
        options=config["masks"],
        code=code_of("mask_scene"),
        home=HOME,
    message:
        "Masking clouds and shadows of {wildcards.shard}"
    script:
        "../scripts/mask_scene.py"
