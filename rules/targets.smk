"""What a user may ask for: one stage, one model, one scene. The default is in the Snakefile."""

try:
    check_targets(sys.argv[1:], DIVISION, TABLES)
except InputError as error:
    raise WorkflowError(str(error)) from None


rule search:
    """Search all scenes with source stac and write their locks; nothing is fetched."""
    input:
        [local(lock_of(row, STAC)) for row in TABLES.searches.values()],


rule scenes:
    """Stage 1: assemble all scenes."""
    input:
        expand("<results>/shards/{shard}/download.json", shard=SHARDS),


rule masks:
    """Stage 2: mask clouds and shadows on all scenes."""
    input:
        expand("<results>/shards/{shard}/masks.json", shard=SHARDS),


rule coregistration:
    """Stage 3: coregister all scenes; they are then ready for the models."""
    input:
        READY_SHARDS,


rule inference:
    """Stage 4: run all models on all scenes, without scores."""
    input:
        RECORDS,


rule metrics:
    """Stage 5: score, compare and list everything, without the report."""
    input:
        "<results>/metrics.csv",
        "<results>/skipped.csv",
        "<results>/scenes.csv",
        rules.compare_models.output,


use rule collect_metrics as collect_model with:
    """Run one model alone on all scenes: results/only/model/MODEL.csv"""
    input:
        metrics=expand("<results>/metrics/{{model}}/{shard}.csv", shard=SHARDS),
        skipped=expand("<results>/metrics/{{model}}/{shard}.skipped.csv", shard=SHARDS),
        checksums=expand("<results>/metrics/{{model}}/{shard}.sha256", shard=SHARDS),
    output:
        metrics="<results>/only/model/{model}.csv",
        skipped="<results>/only/model/{model}.skipped.csv",
        checksums="<results>/only/model/{model}.sha256",
    log:
        "<logs>/collect_model/{model}.log",
    message:
        "Collecting the metrics of {wildcards.model}"


use rule collect_metrics as collect_scene with:
    """Run all models on one scene alone: results/only/scene/SCENE.csv"""
    input:
        metrics=expand(
            "<results>/metrics/{batch}/scene-{{scene}}.csv", batch=DIVISION.batches
        ),
        skipped=expand(
            "<results>/metrics/{batch}/scene-{{scene}}.skipped.csv",
            batch=DIVISION.batches,
        ),
        checksums=expand(
            "<results>/metrics/{batch}/scene-{{scene}}.sha256",
            batch=DIVISION.batches,
        ),
    output:
        metrics="<results>/only/scene/{scene}.csv",
        skipped="<results>/only/scene/{scene}.skipped.csv",
        checksums="<results>/only/scene/{scene}.sha256",
    log:
        "<logs>/collect_scene/{scene}.log",
    message:
        "Collecting the metrics of {wildcards.scene}"
