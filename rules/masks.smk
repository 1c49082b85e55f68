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
        mem_mb=memory("mask_scene"),
        runtime=minutes("mask_scene"),
        disk_mb=1000,
    params:
        options=config["masks"],
    message:
        "Masking clouds and shadows of {wildcards.scene}"
    script:
        "../scripts/mask_scene.py"
