"""The tables of the run, read and checked; the names of what is made."""

import gc
from functools import cache
from types import SimpleNamespace

from unveil.config import load_config
from unveil.models.registry import is_own
from unveil.sources.registry import source_of
from unveil.sources.stac.lock import lock_of, make_request
from unveil.workflow.batches import (
    CANDIDATES,
    ENVIRONMENT,
    METHODS,
    NETWORKS,
    PRODUCT,
    check_targets,
    divide,
    models_of,
    scenes_of,
    with_networks,
)
from unveil.code import code_of
from unveil.workflow.own_code import code_of_row
from unveil.workflow.tables import (
    RANKING,
    read_model,
    read_planned_tables,
    read_tables,
    require_deployed,
    stamp_of,
)

# What planning makes stays; looking for garbage in it after every few objects takes a tenth of
# the time.
gc.set_threshold(100_000, 50, 1000)

CONFIG_FILE = (
    (", ".join(map(str, workflow.configfiles)) or "config/config.yaml")
    if MAIN
    else "config of the module"
)

try:
    config = load_config(config, file=CONFIG_FILE)
    TABLES = (
        read_planned_tables(config, file=CONFIG_FILE)
        if ELSEWHERE
        else read_tables(config, file=CONFIG_FILE, command=COMMAND)
    )
    require_deployed(TABLES, DEPLOYED)
except InputError as error:
    raise WorkflowError(str(error)) from None

DIVISION = divide(TABLES, config["inference"])
gc.freeze()
SHARDS, JOBS = list(DIVISION.shards), DIVISION.jobs
STAC = TABLES.stac
# of all models that may run, those of products included
ROWS = {**TABLES.candidates, **TABLES.models}
SOURCES = config["sources"] | {"stac": STAC}


pathvars:
    results=config["results"],
    logs=f"{config['results']}/logs",
    benchmarks=f"{config['results']}/benchmarks",


wildcard_constraints:
    batch=r"_methods|_networks|_candidates|_cloudfree|_environment-\d+|[A-Za-z0-9][A-Za-z0-9._-]*",
    product=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    # one of the run, of a product, or a scene that is asked for alone
    shard=r"shard-\d+|(dates|judge)-[A-Za-z0-9._-]+-\d+|scene-[A-Za-z0-9._-]+(?<!\.skipped)",


def placed(folder):
    """Put a folder of results where a module's prefix puts the files that rules declare."""
    return workflow.pathvars.apply(
        workflow.modifier.path_modifier.replace_prefix(folder)
    )


HOME = placed("<results>/scenes")
PREDICTIONS = placed("<results>/predictions")
SCORES = placed("<results>/scores")
COSTS = placed("<results>/costs")
LOGS = placed("<logs>")
READY_SHARDS = expand("<results>/shards/{shard}/scene.json", shard=SHARDS)
RECORDS = [f"<results>/inference/{batch}/{shard}.json" for batch, shard in JOBS]


def names_of(batches):
    """Write batches as the constraint of a wildcard."""
    return "|".join(name.replace(".", "[.]") for name in sorted(batches)) or "-"
