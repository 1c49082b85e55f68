

rule write_manifest:
    input:
        scenes=READY_SHARDS,
        archives=FACTS + SENT_WEIGHTS,
        records=[f"{RESULTS}/inference/{batch}/{shard}.json" for batch, shard in JOBS],
    output:
        f"{RESULTS}/manifest.json",
    log:
        f"{RESULTS}/logs/write_manifest.log",
    conda:
        "../envs/inference.yaml"
    threads: 1
    resources:
        mem_mb=doubling(2000),
        runtime=doubling(30),
        disk_mb=100,
    params:
        home=HOME,
        code=code("provenance"),
        models=MODELS,
        command=COMMAND,
    message:
        "Writing the run manifest"
    script:
        "../scripts/write_manifest.py"


rule render_report:
    input:
        scenes=READY_SHARDS,
        archives=FACTS + PICTURE_ARCHIVES,
        metrics=rules.collect_metrics.output.metrics,
        skipped=rules.collect_metrics.output.skipped,
        manifest=rules.write_manifest.output[0],
        pooled=rules.compare_models.output.pooled,
        comparison=rules.compare_models.output.comparison,
        ranking=rules.compare_models.output.ranking,
        strata=rules.compare_models.output.strata,
        published=rules.compare_models.output.published,
        definitions=rules.compare_models.output.definitions,
        beside=beside("citations.bib", "land_110m.geojson"),
    output:
        page=report(
            f"{RESULTS}/report/index.html",
            caption="../report/page.rst",
            category="Report",
            labels={"page": "the whole report"},
        ),
        picture=report(
            f"{RESULTS}/report/figures/picture.png",
            caption="../report/picture.rst",
            category="Figures",
            labels={"figure": "comparison picture"},
        ),
        mae_by_cover=report(
            f"{RESULTS}/report/figures/mae_by_cover.svg",
            caption="../report/mae_by_cover.rst",
            category="Figures",
            labels={"figure": "error against cloud cover"},
        ),
        mae_by_band=report(
            f"{RESULTS}/report/figures/mae_by_band.svg",
            caption="../report/mae_by_band.rst",
            category="Figures",
            labels={"figure": "error by band"},
        ),
        mae_by_days=report(
            f"{RESULTS}/report/figures/mae_by_days.svg",
            caption="../report/mae_by_days.rst",
            category="Figures",
            labels={"figure": "error against days to the nearest clear look"},
        ),
        cost=report(
            f"{RESULTS}/report/figures/cost.svg",
            caption="../report/cost.rst",
            category="Figures",
            labels={"figure": "error against computing time"},
        ),
        critical_difference=report(
            f"{RESULTS}/report/figures/critical_difference.svg",
            caption="../report/critical_difference.rst",
            category="Figures",
            labels={"figure": "critical-difference diagram"},
        ),
        spectra=report(
            f"{RESULTS}/report/figures/spectra.svg",
            caption="../report/spectra.rst",
            category="Figures",
            labels={"figure": "spectra of chosen pixels"},
        ),
        places=report(
            f"{RESULTS}/report/figures/places.svg",
            caption="../report/places.rst",
            category="Figures",
            labels={"figure": "map of the places"},
        ),
        places_geojson=f"{RESULTS}/report/figures/places.geojson",
        calibration=report(
            f"{RESULTS}/report/figures/calibration.svg",
            caption="../report/calibration.rst",
            category="Figures",
            labels={"figure": "calibration of the standard deviations"},
        ),
        table=report(
            f"{RESULTS}/report/figures/metrics_table.html",
            caption="../report/metrics_table.rst",
            category="Tables",
            labels={"table": "metrics by model and cloud level"},
        ),
        table_csv=report(
            f"{RESULTS}/report/figures/metrics_table.csv",
            caption="../report/metrics_table.rst",
            category="Tables",
            labels={"table": "metrics by model and cloud level (CSV)"},
        ),
        skips=report(
            f"{RESULTS}/report/figures/skipped.html",
            caption="../report/skipped.rst",
            category="Tables",
            labels={"table": "skipped pairs and reasons"},
        ),
    log:
        f"{RESULTS}/logs/render_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/render_report.tsv"
    conda:
        "../envs/report.yaml"
    threads: 1
    resources:
        mem_mb=doubling(4000),
        runtime=doubling(60),
        disk_mb=500 + (4 + len(MODELS)) * sum(map(size_of_shard, PICTURED)),
    params:
        home=HOME,
        code=code("report"),
        predictions=f"{RESULTS}/predictions",
        # beside the workflow, on whatever machine the job runs
        resources=lambda wildcards: f"{workflow.basedir}/resources",
        pictured=(
            [scene for shard in PICTURED for scene in SHARDS[shard]]
            if STORED
            else None
        ),
        options={**config["report"], "cloud_levels": config["metrics"]["cloud_levels"]},
    message:
        "Rendering the report"
    script:
        "../scripts/render_report.py"
