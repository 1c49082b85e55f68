rule coregister_scene:
    input:
        record=rules.mask_scene.output.record,
        archives=carried("shards/{shard}/download.tar", "shards/{shard}/masks.tar"),
    output:
        record=f"{RESULTS}/shards/{{shard}}/scene.json",
        archives=carried("shards/{shard}/scene.tar"),
        facts=carried("shards/{shard}/facts.tar"),
    log:
        f"{RESULTS}/logs/coregister_scene/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/coregister_scene/{{shard}}.tsv"
    conda:
        "../envs/coregistration.yaml"
    threads: 4
    resources:
        mem_mb=memory("coregister_scene"),
        runtime=minutes("coregister_scene"),
        disk_mb=disk(4000),
    params:
        options=config["coregistration"],
        code=code_of("coregister_scene"),
        home=HOME,
    message:
        "Coregistering the frames of {wildcards.shard}"
    script:
        "../scripts/coregister_scene.py"
