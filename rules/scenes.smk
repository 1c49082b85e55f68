"""Scenes: searched in catalogues where they are to be, and assembled from their sources."""


rule search_scene:
    """Ask the catalogue what there is of one scene, and write its lock."""
    output:
        lock=local(update(f"{STAC['locks']}/{{scene}}.json")),
    log:
        "<logs>/search_scene/{scene}.log",
    localrule: True
    conda:
        "../envs/scenes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        disk_mb=1000,
    params:
        request=lambda wildcards: make_request(TABLES.searches[wildcards.scene], STAC),
        settings=STAC,
    message:
        "Searching frames for scene {wildcards.scene}"
    script:
        "../scripts/search_scene.py"


rule assemble_scene:
    """Make the scenes of a shard from their sources: frames, radar, clouds and truth."""

    # The files that go in and the scenes that come out are too many for the workflow's
    # graph: a change of the first changes 'stamp', and the record names the second with
    # checksums. So a job that died finds the scenes that it had finished.
    input:
        locks=lambda wildcards: seen(get_locks(wildcards)),
        places=lambda wildcards: seen(get_places(wildcards)),
    output:
        record="<results>/shards/{shard}/download.json",
    log:
        "<logs>/assemble_scene/{shard}.log",
    benchmark:
        "<benchmarks>/assemble_scene/{shard}.tsv"
    conda:
        "../envs/scenes.yaml"
    threads: 4
    resources:
        mem_mb=memory("assemble_scene"),
        runtime=assembly_minutes,
        disk_mb=4000,
    params:
        rows=lambda wildcards: [
            vars(TABLES.scenes[scene]) for scene in get_scenes(wildcards)
        ],
        stamp=lambda wildcards: stamp_of(get_scenes(wildcards), TABLES),
        code=code_of("assemble_scene"),
        home=HOME,
        sources=get_source_settings,
        cache=config["cache"],
        seed=config["seed"],
    message:
        "Assembling the scenes of {wildcards.shard}"
    script:
        "../scripts/assemble_scene.py"
