"""Published weights: downloaded by name into the cache, checked, and kept between runs."""

import re

from unveil.weights.published import read_published

try:
    PUBLISHED = read_published(HERE / "resources" / "published_weights.tsv")
except InputError as error:
    raise WorkflowError(str(error)) from None

WEIGHTS_FOLDER = f"{config['cache']}/weights"


wildcard_constraints:
    weights_file="|".join(map(re.escape, PUBLISHED)),


rule fetch_one_weights:
    """Fetch one file of published weights; one that was put there by hand is checked and kept."""
    output:
        # 'update' leaves it where it is
        weights=local(update(f"{WEIGHTS_FOLDER}/{{weights_file}}")),
        record=local(update(f"{WEIGHTS_FOLDER}/{{weights_file}}.json")),
    log:
        "<logs>/fetch_one_weights/{weights_file}.log",
    localrule: True
    conda:
        "../envs/weights.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
        disk_mb=500,
    params:
        entry=lambda wildcards: vars(PUBLISHED[wildcards.weights_file]),
        folder=lambda wildcards: WEIGHTS_FOLDER,  # of this machine: the rule is local
        damaged=get_damaged,
        code=code_of("fetch_weights"),
    message:
        "Fetching {wildcards.weights_file}"
    script:
        "../scripts/fetch_weights.py"


rule fetch_weights:
    """Fetch all published weights that have a direct address."""

    # One alone:  snakemake .cache/unveil/weights/FILE
    input:
        [
            local(f"{WEIGHTS_FOLDER}/{name}{suffix}")
            for name, row in PUBLISHED.items()
            if row.url
            for suffix in ("", ".json")
        ],
