localrules:
    search,
    search_scene,


rule search:
    """Search all scenes with source stac and write their locks; nothing is assembled."""
    input:
        [lock_path(scene, STAC) for scene in REQUESTS],


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
        request=lambda wildcards: REQUESTS[wildcards.scene],
        settings=STAC,
    message:
        "Searching frames for scene {wildcards.scene}"
    script:
        "../scripts/search_scene.py"


rule assemble_scene:
    input:
        source=get_source_files,
        code=code("sources", "protocols", "clouds"),
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
        runtime=60,
        disk_mb=4000,
    params:
        row=get_row,
        sources=get_source_settings,
        seed=config["seed"],
        dilate_px=config["masks"]["dilate_px"],
    message:
        "Assembling scene {wildcards.scene}"
    script:
        "../scripts/assemble_scene.py"
