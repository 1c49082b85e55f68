"""Checking one model, before it is compared: does it keep the contract, and what does it cost."""


rule check_one_model:
    """Run the contract's checks on one model, and time it."""
    output:
        record="<results>/check_model/{model}/check.json",
    log:
        "<logs>/check_one_model/{model}.log",
    benchmark:
        "<benchmarks>/check_one_model/{model}.tsv"
    localrule: not SHARED  # its files lie here alone
    conda:
        lambda wildcards: environment_of(checked_row(wildcards))
    container:
        lambda wildcards: checked_row(wildcards).get("container")
    threads: INFER_THREADS
    resources:
        gpu=lambda wildcards: int(
            config["inference"]["gpu"] != "never"
            and wildcards.model in checked(wildcards.model).networks
        ),
        mem_mb=doubling(8000),
        runtime=doubling(60),
        disk_mb=1000,
    params:
        row=checked_row,
        code=lambda wildcards: code_of_row(checked_row(wildcards)),
        checks=code_of("check_model"),
        costs=COSTS,
        options=lambda wildcards: {
            key: config["inference"][key] for key in ("gpu", "backend", "precision")
        },
    message:
        "Checking {wildcards.model}"
    script:
        "../scripts/check_model.py"


rule render_check:
    """Write the page of a model's checks."""
    input:
        record=rules.check_one_model.output.record,
    output:
        page="<results>/check_model/{model}/index.html",
    log:
        "<logs>/render_check/{model}.log",
    localrule: True
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
        disk_mb=10,
    params:
        code=code_of("render_check"),
    message:
        "Writing the page of {wildcards.model}'s checks"
    script:
        "../scripts/render_check.py"


rule check_model:
    """Check one model: snakemake check_model --config model=ID"""
    input:
        unpack(get_pages),
    log:
        "<logs>/check_model.log",
    localrule: True
    conda:
        "../envs/inference.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
        disk_mb=10,
    params:
        code=code_of("judge_model"),
    message:
        "Judging {config[model]}"
    script:
        "../scripts/judge_model.py"
