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


localrules:
    fetch_one_weights,


if CACHE_STORED:

    localrules:
        store_weights,

    # So that weights come from the store wherever the workflow is started next.
    rule store_weights:
        output:
            archives=fetched("weights/{weights_file}"),
        log:
            f"{RESULTS}/logs/store_weights/{{weights_file}}.log",
        conda:
            "../envs/download.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=120,
            disk_mb=1000,
        params:
            entry=lambda wildcards: vars(PUBLISHED[wildcards.weights_file]),
            folder=lambda wildcards: WEIGHTS_FOLDER,  # of the submit host: both rules are local
        message:
            "Fetching {wildcards.weights_file} for the store"
        script:
            "../scripts/fetch_weights.py"


# A file put there by hand is checked and kept: 'update' leaves it where it is.
rule fetch_one_weights:
    input:
        archives=lambda wildcards: (
            fetched(f"weights/{wildcards.weights_file}")
            if PUBLISHED[wildcards.weights_file].url
            else []  # put there by hand alone
        ),
    output:
        weights=local(update(f"{WEIGHTS_FOLDER}/{{weights_file}}")),
        record=local(update(f"{WEIGHTS_FOLDER}/{{weights_file}}.json")),
    log:
        f"{RESULTS}/logs/fetch_weights/{{weights_file}}.log",
    conda:
        "../envs/download.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=120,
        disk_mb=500,
    params:
        entry=lambda wildcards: vars(PUBLISHED[wildcards.weights_file]),
        folder=lambda wildcards: WEIGHTS_FOLDER,  # of the submit host: both rules are local
        damaged=get_damaged,
        code=code_of("fetch_weights"),
    message:
        "Fetching {wildcards.weights_file}"
    script:
        "../scripts/fetch_weights.py"


# Those with a direct address. One alone:  snakemake .cache/unveil/weights/FILE
rule fetch_weights:
    input:
        [
            local(f"{WEIGHTS_FOLDER}/{name}{suffix}")
            for name, row in PUBLISHED.items()
            if row.url
            for suffix in ("", ".json")
        ],
