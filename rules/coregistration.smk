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
        mem_mb=memory("coregister_scene"),
        runtime=minutes("coregister_scene"),
        disk_mb=4000,
    params:
        options=config["coregistration"],
    message:
        "Coregistering the frames of {wildcards.scene}"
    script:
        "../scripts/coregister_scene.py"
