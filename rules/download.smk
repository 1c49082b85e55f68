rule assemble_scene:
    # The files that go in and the scenes that come out are too many for the workflow's
    # graph: a change of the first changes 'stamp', and the record names the second with
    # checksums. So a job that died finds the scenes that it had finished.
    output:
        record=f"{RESULTS}/shards/{{shard}}/download.json",
    log:
        f"{RESULTS}/logs/assemble_scene/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/assemble_scene/{{shard}}.tsv"
    conda:
        "../envs/download.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        disk_mb=4000,
    params:
        rows=get_rows,
        stamp=get_stamp,
        code=code("sources", "protocols", "clouds", "shards"),
        home=HOME,
        sources=config["sources"],
        seed=config["seed"],
        dilate_px=config["masks"]["dilate_px"],
    message:
        "Assembling the scenes of {wildcards.shard}"
    script:
        "../scripts/assemble_scene.py"
