"""Coregistration: frames on the grid to a fraction of a pixel."""


rule coregister_scene:
    """Find, record and remove shifts between the frames of a shard's scenes."""
    input:
        record=rules.mask_scene.output.record,
    output:
        record="<results>/shards/{shard}/scene.json",
    log:
        "<logs>/coregister_scene/{shard}.log",
    benchmark:
        "<benchmarks>/coregister_scene/{shard}.tsv"
    conda:
        "../envs/coregistration.yaml"
    threads: 4
    resources:
        mem_mb=memory("coregister_scene"),
        runtime=minutes("coregister_scene"),
        disk_mb=4000,
    params:
        options=config["coregistration"],
        code=code_of("coregister_scene"),
        home=HOME,
    message:
        "Coregistering the frames of {wildcards.shard}"
    script:
        "../scripts/coregister_scene.py"
