"""Products: cloud-free images of the dates of a place, from the stages that all scenes pass."""


rule choose_model:
    """Choose which models make the images of a product, by its own scores where it has any."""
    input:
        metrics=lambda wildcards: tables_of_judges(wildcards, ".csv"),
        checksums=lambda wildcards: tables_of_judges(wildcards, ".sha256"),
        ranking=lambda wildcards: seen([RANKING]),
    output:
        record="<results>/chosen/{product}.json",
    log:
        "<logs>/choose_model/{product}.log",
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
        disk_mb=100,
    params:
        wish=config["cloudfree"]["model"],
        candidates=list(TABLES.candidates),
        dates=lambda wildcards: {
            scene: TABLES.scenes[scene].target_date
            for scene in TABLES.judges.get(wildcards.product, ())
        },
        # beside the workflow, on whatever machine the job runs
        ranking=lambda wildcards: str(RANKING),
        code=code_of("choose_model"),
    message:
        "Choosing the models of {wildcards.product}"
    script:
        "../scripts/choose_model.py"


use rule infer as infer_cloudfree with:
    """Clear the dates of a product by the first model of its choice that answers."""
    input:
        scenes=rules.coregister_scene.output.record,
        choice=lambda wildcards: f"<results>/chosen/{product_of(wildcards.shard)}.json",
        weights=lambda wildcards: seen(get_weights(wildcards)),
    output:
        record=f"<results>/inference/{{batch,{PRODUCT}}}/{{shard}}.json",
    resources:
        gpu=(
            1
            if config["inference"]["gpu"] != "never"
            and set(TABLES.candidates) & TABLES.networks
            else 0
        ),
        mem_mb=tile_memory,
        runtime=minutes("infer"),
        disk_mb=4000,


rule make_cloudfree:
    """Write the images of a product, their STAC Items and Collection, and its page."""
    input:
        scenes=lambda wildcards: [
            f"<results>/shards/{shard}/scene.json" for shard in dates_of(wildcards)
        ],
        records=lambda wildcards: [
            f"<results>/inference/{PRODUCT}/{shard}.json"
            for shard in dates_of(wildcards)
        ],
        choice=rules.choose_model.output.record,
        clip=seen(filter(None, [config["cloudfree"]["clip"]])),
    output:
        # Images are not declared: a date that no model can do has none.
        collection="<results>/cloudfree/{product}/collection.json",
    log:
        "<logs>/make_cloudfree/{product}.log",
    benchmark:
        "<benchmarks>/make_cloudfree/{product}.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=doubling(3000),
        runtime=doubling(240),
        disk_mb=4000,
    params:
        predictions=PREDICTIONS,
        home=HOME,
        models=ROWS,
        clip=config["cloudfree"]["clip"],
        code=code_of("make_cloudfree"),
    message:
        "Writing the cloud-free images of {wildcards.product}"
    script:
        "../scripts/make_cloudfree.py"


rule cloudfree:
    """Make the cloud-free images of all rows with protocol none: results/cloudfree/SCENE."""
    input:
        expand("<results>/cloudfree/{product}/collection.json", product=TABLES.products),
