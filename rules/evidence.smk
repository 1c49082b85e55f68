"""Evidence: what all methods reach on public places; never part of a usual run."""

from unveil.protocols import PROTOCOLS

DOCUMENT = config["evidence"] or "<results>/evidence.md"
RECOMMENDED = config["evidence_ranking"] or "<results>/ranking.tsv"


rule write_evidence:
    """Write down what every method reached, where, and which places it knew."""
    input:
        scenes=READY_SHARDS,
        metrics=rules.collect_metrics.output.metrics,
        skipped=rules.collect_metrics.output.skipped,
        checksums=rules.collect_metrics.output.checksums,
    output:
        document=local(DOCUMENT) if config["evidence"] else DOCUMENT,
        ranking=local(RECOMMENDED) if config["evidence_ranking"] else RECOMMENDED,
        page="<results>/evidence.html",
        numbers="<results>/evidence.csv",
    log:
        "<logs>/write_evidence.log",
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(30),
        disk_mb=100,
    params:
        home=HOME,
        title=config["report"]["title"],
        code=code_of("write_evidence"),
        models=TABLES.models,
        levels=lambda wildcards: {
            row.scene: row.cloud_level
            for row in TABLES.scenes.values()
            if PROTOCOLS[row.protocol].exact
        },
    message:
        "Writing the evidence"
    script:
        "../scripts/write_evidence.py"


rule evidence:
    """All methods on public places: the document, its page, and the report of the run."""

    # With a configuration of its own:  snakemake evidence --configfile config/evidence.yaml
    input:
        rules.write_evidence.output,
        "<results>/report/index.html",
