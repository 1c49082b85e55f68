localrules:
    search,
    search_scene,


rule search:
    """Search all scenes with source stac and write their locks; nothing is fetched."""
    input:
        [lock_path(row.scene, STAC) for row in SCENES.values() if row.source == "stac"],


rule search_scene:
    output:
        lock=update(f"{STAC['locks']}/{{scene}}.json"),
    log:
        f"{RESULTS}/logs/search_scene/{{scene}}.log",
    conda:
        "../envs/download.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        disk_mb=1000,
    params:
        request=get_request,
        settings=STAC,
    message:
        "Searching frames for scene {wildcards.scene}"
    script:
        "../scripts/search_scene.py"


rule assemble_scene:
    input:
        source=get_source_files,
        code=ASSEMBLY_CODE,
    output:
        scene=f"{RESULTS}/scenes/{{scene}}/download.json",
        frames=directory(f"{RESULTS}/scenes/{{scene}}/frames"),
        sar=directory(f"{RESULTS}/scenes/{{scene}}/sar"),
        truth=directory(f"{RESULTS}/scenes/{{scene}}/truth"),
        masks=directory(f"{RESULTS}/scenes/{{scene}}/source_masks"),
    log:
        f"{RESULTS}/logs/assemble_scene/{{scene}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/assemble_scene/{{scene}}.tsv"
    conda:
        "../envs/download.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=get_runtime,
        disk_mb=4000,
    params:
        rows=get_rows,
        sources=get_source_settings,
        seed=config["seed"],
        detection=DETECTION,
    message:
        "Assembling scene {wildcards.scene}"
    script:
        "../scripts/assemble_scene.py"


# Patches of benchmark datasets: a job of its own for each would cost more than its work.
for SHARD, PATCHES in PATCH_SHARDS.items():

    rule:
        name:
            f"assemble_{SHARD.replace('-', '_')}"
        input:
            source=[file for scene in PATCHES for file in input_files(SCENES[scene])],
            code=ASSEMBLY_CODE,
        output:
            scene=expand(rules.assemble_scene.output.scene, scene=PATCHES),
            frames=[directory(f"{RESULTS}/scenes/{scene}/frames") for scene in PATCHES],
            sar=[directory(f"{RESULTS}/scenes/{scene}/sar") for scene in PATCHES],
            truth=[directory(f"{RESULTS}/scenes/{scene}/truth") for scene in PATCHES],
            masks=[
                directory(f"{RESULTS}/scenes/{scene}/source_masks")
                for scene in PATCHES
            ],
        log:
            f"{RESULTS}/logs/assemble_scene/{SHARD}.log",
        benchmark:
            f"{RESULTS}/benchmarks/assemble_scene/{SHARD}.tsv"
        conda:
            "../envs/download.yaml"
        threads: 1
        resources:
            mem_mb=2000,
            runtime=60,
            disk_mb=4000,
        params:
            rows=[vars(SCENES[scene]) for scene in PATCHES],
            sources=config["sources"],
            seed=config["seed"],
            detection=DETECTION,
        message:
            f"Assembling {len(PATCHES)} patches, {SHARD}"
        script:
            "../scripts/assemble_scene.py"
