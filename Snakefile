"""Unveil: which cloud removal can you trust on your own Sentinel-2 scenes?"""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/where.smk"


if (
    MAIN and Path("config/config.yaml").is_file()
):  # else the defaults, which are the same

    configfile: "config/config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/lookup.smk"
include: "rules/resources.smk"
include: "rules/places.smk"
include: "rules/scenes.smk"
include: "rules/masks.smk"
include: "rules/coregistration.smk"
include: "rules/inference.smk"
include: "rules/check.smk"
include: "rules/metrics.smk"
include: "rules/report.smk"
include: "rules/cloudfree.smk"
include: "rules/deliveries.smk"
include: "rules/evidence.smk"
include: "rules/weights.smk"
include: "rules/training.smk"
include: "rules/targets.smk"
include: "rules/start.smk"


if STORED:

    include: "rules/store.smk"


rule all:
    """The report, the tables and the manifest; of rows of many dates alone, their images."""
    default_target: True
    input:
        (
            [
                "<results>/report/index.html",
                "<results>/metrics.csv",
                "<results>/skipped.csv",
                "<results>/scenes.csv",
                "<results>/manifest.json",
            ]
            if SHARDS
            else rules.cloudfree.input
        ),
