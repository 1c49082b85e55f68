rule mask_scene:
    input:
        scene=rules.assemble_scene.output.scene,
        frames=rules.assemble_scene.output.frames,
        source_masks=rules.assemble_scene.output.masks,
        code=code("masks"),
    output:
        scene=f"{RESULTS}/scenes/{{scene}}/masks.json",
        masks=directory(f"{RESULTS}/scenes/{{scene}}/masks"),
    log:
        f"{RESULTS}/logs/mask_scene/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/mask_scene/{{scene}}.tsv"
    conda:
        "../envs/masks.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
        disk_mb=1000,
    params:
        options=config["masks"],
    message:
        "Masking clouds and shadows of {wildcards.scene}"
    script:
        "../scripts/mask_scene.py"


for SHARD, PATCHES in PATCH_SHARDS.items():

    rule:
        name:
            f"mask_{SHARD.replace('-', '_')}"
        input:
            scene=expand(rules.mask_scene.input.scene, scene=PATCHES),
            frames=expand(rules.mask_scene.input.frames, scene=PATCHES),
            source_masks=expand(rules.mask_scene.input.source_masks, scene=PATCHES),
            code=code("masks"),
        output:
            scene=expand(rules.mask_scene.output.scene, scene=PATCHES),
            masks=[directory(f"{RESULTS}/scenes/{scene}/masks") for scene in PATCHES],
        log:
            f"{RESULTS}/logs/mask_scene/{SHARD}.log",
        benchmark:
            f"{RESULTS}/benchmarks/mask_scene/{SHARD}.tsv"
        conda:
            "../envs/masks.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=60,
            disk_mb=1000,
        params:
            options=config["masks"],
        message:
            f"Masking clouds and shadows of {len(PATCHES)} patches, {SHARD}"
        script:
            "../scripts/mask_scene.py"
