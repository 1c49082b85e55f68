rule mask_scene:
    input:
        record=rules.assemble_scene.output.record,
        archives=rules.assemble_scene.output.archives,
    output:
        record=f"{RESULTS}/shards/{{shard}}/masks.json",
        archives=carried("shards/{shard}/masks.tar"),
    log:
        f"{RESULTS}/logs/mask_scene/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/mask_scene/{{shard}}.tsv"
    conda:
        "../envs/masks.yaml"
    threads: 4
    resources:
        mem_mb=memory("mask_scene"),
        runtime=minutes("mask_scene"),
        disk_mb=disk(1000),
    params:
        options=config["masks"],
        code=code_of("mask_scene"),
        home=HOME,
    message:
        "Masking clouds and shadows of {wildcards.shard}"
    script:
        "../scripts/mask_scene.py"
