"""Report: the page, the manifest of the run, and where each scene stands."""


rule write_manifest:
    """Write down what ran, on what, with which weights and data."""
    input:
        scenes=READY_SHARDS,
        records=RECORDS,
    output:
        "<results>/manifest.json",
    log:
        "<logs>/write_manifest.log",
    conda:
        "../envs/inference.yaml"
    threads: 1
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(30),
        disk_mb=100,
    params:
        home=HOME,
        code=code_of("write_manifest"),
        models=TABLES.models,
        command=TABLES.command,
    message:
        "Writing the run manifest"
    script:
        "../scripts/write_manifest.py"


rule list_scenes:
    """List the scenes: shard, state, skipped pairs and logs of each."""
    input:
        scenes=READY_SHARDS,
        records=RECORDS,
        skipped=rules.collect_metrics.input.skipped,
        checksums=rules.collect_metrics.input.checksums,
        # So that both share a submission. By its name: once a file is another rule's
        # output, Snakemake hashes the lists of files again for each file in them.
        collected="<results>/skipped.csv",
    output:
        scenes="<results>/scenes.csv",
    log:
        "<logs>/list_scenes.log",
    conda:
        "../envs/metrics.yaml"
    threads: 1
    resources:
        mem_mb=doubling(1000),
        runtime=doubling(30),
        disk_mb=100,
    params:
        logs=LOGS,
        code=code_of("list_scenes"),
    message:
        "Listing the scenes"
    script:
        "../scripts/list_scenes.py"


rule render_report:
    """Render the page and its figures."""
    input:
        scenes=READY_SHARDS,
        metrics=rules.collect_metrics.output.metrics,
        skipped=rules.collect_metrics.output.skipped,
        checksums=rules.collect_metrics.output.checksums,
        manifest=rules.write_manifest.output[0],
        pooled=rules.compare_models.output.pooled,
        comparison=rules.compare_models.output.comparison,
        ranking=rules.compare_models.output.ranking,
        strata=rules.compare_models.output.strata,
        published=rules.compare_models.output.published,
        definitions=rules.compare_models.output.definitions,
        statistics=rules.compare_models.output.checksums,
        beside=seen(
            f"{HERE}/resources/{name}"
            for name in ("citations.bib", "land_110m.geojson")
        ),
    output:
        page=report(
            "<results>/report/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "the whole report"},
        ),
        picture=report(
            "<results>/report/figures/picture.png",
            caption="../report/picture.rst",
            category="Figures",
            labels={"figure": "comparison picture"},
        ),
        mae_by_cover=report(
            "<results>/report/figures/mae_by_cover.svg",
            caption="../report/mae_by_cover.rst",
            category="Figures",
            labels={"figure": "error against cloud cover"},
        ),
        mae_by_band=report(
            "<results>/report/figures/mae_by_band.svg",
            caption="../report/mae_by_band.rst",
            category="Figures",
            labels={"figure": "error by band"},
        ),
        mae_by_days=report(
            "<results>/report/figures/mae_by_days.svg",
            caption="../report/mae_by_days.rst",
            category="Figures",
            labels={"figure": "error against days to the nearest clear look"},
        ),
        cost=report(
            "<results>/report/figures/cost.svg",
            caption="../report/cost.rst",
            category="Figures",
            labels={"figure": "error against computing time"},
        ),
        critical_difference=report(
            "<results>/report/figures/critical_difference.svg",
            caption="../report/critical_difference.rst",
            category="Figures",
            labels={"figure": "critical-difference diagram"},
        ),
        spectra=report(
            "<results>/report/figures/spectra.svg",
            caption="../report/spectra.rst",
            category="Figures",
            labels={"figure": "spectra of chosen pixels"},
        ),
        places=report(
            "<results>/report/figures/places.svg",
            caption="../report/places.rst",
            category="Figures",
            labels={"figure": "map of the places"},
        ),
        places_geojson="<results>/report/figures/places.geojson",
        calibration=report(
            "<results>/report/figures/calibration.svg",
            caption="../report/calibration.rst",
            category="Figures",
            labels={"figure": "calibration of the standard deviations"},
        ),
        table=report(
            "<results>/report/figures/metrics_table.html",
            caption="../report/metrics_table.rst",
            category="Tables",
            labels={"table": "metrics by model and cloud level"},
        ),
        table_csv=report(
            "<results>/report/figures/metrics_table.csv",
            caption="../report/metrics_table.rst",
            category="Tables",
            labels={"table": "metrics by model and cloud level (CSV)"},
        ),
        skips=report(
            "<results>/report/figures/skipped.html",
            caption="../report/skipped.rst",
            category="Tables",
            labels={"table": "skipped pairs and reasons"},
        ),
    log:
        "<logs>/render_report.log",
    benchmark:
        "<benchmarks>/render_report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=doubling(4000),
        runtime=doubling(60),
        disk_mb=500,
    params:
        home=HOME,
        code=code_of("render_report"),
        predictions=PREDICTIONS,
        # beside the workflow, on whatever machine the job runs
        resources=lambda wildcards: f"{HERE}/resources",
        options={**config["report"], "cloud_levels": config["metrics"]["cloud_levels"]},
    message:
        "Rendering the report"
    script:
        "../scripts/render_report.py"
