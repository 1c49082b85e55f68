localrules:
    search,
    search_scene,


rule search:
    """Search all scenes with source stac and write their locks; nothing is fetched."""
    input:
        [
            local(lock_path(row.scene, STAC))
            for row in SCENES.values()
            if row.source == "stac"
        ],


rule search_scene:
    output:
        lock=local(update(f"{STAC['locks']}/{{scene}}.json")),
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


if not SHARED:

    localrules:
        send,

    # Input files and weights lie where the workflow was started.
    rule send:
        input:
            get_watched,
        output:
            archive=f"{RESULTS}/sent/{{what}}.tar",
        log:
            f"{RESULTS}/logs/send/{{what}}.log",
        wildcard_constraints:
            what=r"shard-\d+|lock-.+|weights-.+",
        conda:
            "../envs/download.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=120,
            disk_mb=2000,
        params:
            files=get_files_to_send,
            stamp=get_stamp_to_send,
        message:
            "Packing the input of {wildcards.what}"
        script:
            "../scripts/send.py"


if CACHE_STORED:

    # An archive a scene, as a shard's scenes change with the table. What is fetched depends on
    # the lock alone; the settings, such as the number of connections, would fetch it again.
    rule fetch_scene:
        input:
            lock=get_lock if SHARED else [],
            archives=sent("lock-{scene}"),
        output:
            archive=fetched("scenes/{scene}")[0],
        log:
            f"{RESULTS}/logs/fetch_scene/{{scene}}.log",
        benchmark:
            f"{RESULTS}/benchmarks/fetch_scene/{{scene}}.tsv"
        conda:
            "../envs/download.yaml"
        threads: 1
        resources:
            mem_mb=doubling(2000),
            runtime=FETCH_MINUTES,
            disk_mb=lambda wildcards: 2000 + 2 * SIZES[wildcards.scene] // 10**6,
        params:
            row=lambda wildcards: vars(SCENES[wildcards.scene]),
        message:
            "Fetching scene {wildcards.scene}"
        script:
            "../scripts/fetch_scene.py"


rule assemble_scene:
    # The files that go in and the scenes that come out are too many for the workflow's
    # graph: a change of the first changes 'stamp', and the record names the second with
    # checksums. So a job that died finds the scenes that it had finished.
    input:
        locks=get_locks if SHARED else [],
        archives=sent("{shard}"),
        fetched=get_fetched,
    output:
        record=f"{RESULTS}/shards/{{shard}}/download.json",
        archives=carried("shards/{shard}/download.tar"),
    log:
        f"{RESULTS}/logs/assemble_scene/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/assemble_scene/{{shard}}.tsv"
    conda:
        "../envs/download.yaml"
    threads: 4
    resources:
        mem_mb=memory("assemble_scene"),
        runtime=assembly_minutes,
        disk_mb=disk(4000),
    params:
        rows=get_rows,
        stamp=get_stamp,
        code=code(
            "sources", "remote", "protocols", "planning", "clouds", "masks", "shards"
        ),
        home=HOME,
        sources=get_source_settings,
        seed=config["seed"],
        detection=DETECTION,
    message:
        "Assembling the scenes of {wildcards.shard}"
    script:
        "../scripts/assemble_scene.py"
