"""Tables read and checked, wildcard constraints, and helpers that rules ask for facts."""

import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from unveil.config import (
    load_config,
    read_models,
    read_scenes,
    read_training,
    select_models,
)
from unveil.errors import InputError
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.planning import expand_scenes
from unveil.protocols import ProtocolSettings
from unveil.sources import input_files

PACKAGE = Path(workflow.basedir) / "scripts" / "unveil"
CONFIG_FILE = ", ".join(map(str, workflow.configfiles)) or "config/config.yaml"

try:
    config = load_config(config, file=CONFIG_FILE)
    MODELS = select_models(
        read_models(config["models"]), config["run_models"], file=CONFIG_FILE
    )
    NETWORKS = {
        model
        for model, row in MODELS.items()
        if create(ModelSpec.from_row(model, row)).network
    }
    SCENES = {
        row.scene: row
        for row in expand_scenes(
            read_scenes(config["scenes"]),
            ProtocolSettings(config["seed"], config["masks"]["dilate_px"]),
            Path(config["cache"]),
        )
    }
    TRAINING = (
        read_training(config["training"])
        if Path(config["training"]).exists()
        else {"run": [], "images": {}, "runs": {}}  # nothing to train in this folder
    )
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"]
SHARDS = {
    f"shard-{number:04d}": list(SCENES)[
        start : start + config["inference"]["shard_size"]
    ]
    for number, start in enumerate(
        range(0, len(SCENES), config["inference"]["shard_size"])
    )
}
ALL_SCENES = [f"{RESULTS}/scenes/{scene}/scene.json" for scene in SCENES]
COMMON_CODE = (
    "bands",
    "classes",
    "config",
    "errors",
    "inputs",
    "jobs",
    "raster",
    "scene",
)


wildcard_constraints:
    scene=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    model=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    shard=r"shard-\d+",


@cache
def code(*stages):
    """List the package's files behind some stages, so that editing one reruns them."""
    files = [PACKAGE / f"{name}.py" for name in COMMON_CODE]
    for stage in stages:
        path = PACKAGE / stage
        files += (
            sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        )
    return [str(path) for path in files]


def get_source_files(wildcards):
    """List the files that a scene is assembled from."""
    return input_files(SCENES[wildcards.scene])


def get_row(wildcards):
    """Give a scene's row of the table as plain values."""
    return vars(SCENES[wildcards.scene])


def get_shard_scenes(wildcards):
    """List the scene files that one inference job serves."""
    return [f"{RESULTS}/scenes/{s}/scene.json" for s in SHARDS[wildcards.shard]]


def get_weights(wildcards):
    """Give a model's weights if they are there; a model without them skips its scenes."""
    path = MODELS[wildcards.model].get("weights")
    return [path] if path and Path(path).exists() else []


def get_damaged(wildcards):
    """Tell whether published weights that are there fail their checksum: fetch them again."""
    from unveil.weights.fetch import is_damaged  # other targets need not load it

    return is_damaged(PUBLISHED[wildcards.weights_file], WEIGHTS_FOLDER)


def get_model_row(wildcards):
    """Give a model's row of the table."""
    return MODELS[wildcards.model]


def get_gpus(wildcards):
    """Ask for a GPU where a network runs, unless the config forbids it."""
    wanted = wildcards.model in NETWORKS and config["inference"]["gpu"] != "never"
    return 1 if wanted else 0


def get_training_sources(wildcards):
    """Give the facts of the series and images that a run uses, by id."""
    run = TRAINING["runs"][wildcards.run]
    known = TRAINING["images"] | TRAINING["series"]
    used = [*run.get("series", {}), *run.get("held_out", []), *run["images"]]
    return {name: known[name] for name in used}


def get_training_images(wildcards):
    """List the files of the series and images that a run uses."""
    return [
        (
            f"{RESULTS}/training/images/{name}.tif"
            if name in TRAINING["images"]
            else f"{RESULTS}/training/series/{name}.npz"
        )
        for name in get_training_sources(wildcards)
    ]


def get_series_files(wildcards):
    """List the local files of a series; those with an address are fetched."""
    files = TRAINING["series"][wildcards.series]["files"]
    return [f["path"] for f in files if "url" not in f and "package" not in f]


COMMAND = "snakemake " + " ".join(shlex.quote(word) for word in sys.argv[1:])
