"""Deliveries: handing scenes over to somebody else's system, and checking what comes back."""


rule write_handover:
    """Write inputs, masks, what is asked for and a self-check; nothing of the truth."""
    input:
        scenes=READY_SHARDS,
    output:
        requests="<results>/handover/requests.json",
        sums="<results>/handover/SHA256SUMS",
    log:
        "<logs>/write_handover.log",
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(60),
        disk_mb=4000,
    params:
        home=HOME,
        code=code_of("write_handover"),
    message:
        "Handing the scenes over"
    script:
        "../scripts/write_handover.py"


rule handover:
    """Write the folder that a vendor needs to answer: results/handover"""
    input:
        rules.write_handover.output,


rule judge_delivery:
    """Judge the files that a row of kind external names: grid, bands, unit, copies."""
    input:
        scenes=READY_SHARDS,
        delivered=lambda wildcards: delivered_files(wildcards.model),
    output:
        table="<results>/deliveries/{model}.tsv",
    log:
        "<logs>/judge_delivery/{model}.log",
    localrule: not SHARED  # the files lie here alone
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(60),
        disk_mb=100,
    params:
        home=HOME,
        row=lambda wildcards: checked(wildcards.model).models[wildcards.model],
        code=code_of("check_delivery"),
    message:
        "Judging the delivery of {wildcards.model}"
    script:
        "../scripts/check_delivery.py"


rule check_delivery:
    """Check what was delivered: snakemake check_delivery --config model=ID"""
    input:
        lambda wildcards: f"<results>/deliveries/{delivering()}.tsv",
