rule coregister_scene:
    input:
        scene=rules.mask_scene.output.scene,
        masks=rules.mask_scene.output.masks,
        frames=rules.assemble_scene.output.frames,
        code=code("coregistration"),
    output:
        scene=f"{RESULTS}/scenes/{{scene}}/scene.json",
        frames=directory(f"{RESULTS}/scenes/{{scene}}/coregistered"),
    log:
        f"{RESULTS}/logs/coregister_scene/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/coregister_scene/{{scene}}.tsv"
    conda:
        "../envs/coregistration.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        disk_mb=4000,
    params:
        options=config["coregistration"],
    message:
        "Coregistering the frames of {wildcards.scene}"
    script:
        "../scripts/coregister_scene.py"


for SHARD, PATCHES in PATCH_SHARDS.items():

    rule:
        name:
            f"coregister_{SHARD.replace('-', '_')}"
        input:
            scene=expand(rules.coregister_scene.input.scene, scene=PATCHES),
            masks=expand(rules.coregister_scene.input.masks, scene=PATCHES),
            frames=expand(rules.coregister_scene.input.frames, scene=PATCHES),
            code=code("coregistration"),
        output:
            scene=expand(rules.coregister_scene.output.scene, scene=PATCHES),
            frames=[
                directory(f"{RESULTS}/scenes/{scene}/coregistered")
                for scene in PATCHES
            ],
        log:
            f"{RESULTS}/logs/coregister_scene/{SHARD}.log",
        benchmark:
            f"{RESULTS}/benchmarks/coregister_scene/{SHARD}.tsv"
        conda:
            "../envs/coregistration.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=60,
            disk_mb=4000,
        params:
            options=config["coregistration"],
        message:
            f"Coregistering the frames of {len(PATCHES)} patches, {SHARD}"
        script:
            "../scripts/coregister_scene.py"
