"""Unveil: which cloud removal can you trust on your own Sentinel-2 scenes?"""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/package.smk"


if (
    MAIN and Path("config/config.yaml").is_file()
):  # else the defaults, which are the same

    configfile: "config/config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/remote.smk"
include: "rules/download.smk"
include: "rules/masks.smk"
include: "rules/coregistration.smk"
include: "rules/inference.smk"
include: "rules/metrics.smk"
include: "rules/report.smk"
include: "rules/weights.smk"
include: "rules/training.smk"
include: "rules/cluster.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report/index.html",
        f"{RESULTS}/metrics.csv",
        f"{RESULTS}/skipped.csv",
        f"{RESULTS}/manifest.json",
