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
        mem_mb=memory("assemble_scene"),
        runtime=minutes("assemble_scene"),
        disk_mb=4000,
    params:
        row=get_row,
        sources=config["sources"],
        seed=config["seed"],
        dilate_px=config["masks"]["dilate_px"],
    message:
        "Assembling scene {wildcards.scene}"
    script:
        "../scripts/assemble_scene.py"
