"""Tables read and checked, wildcard constraints, and helpers that rules ask for facts."""

import hashlib
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import ExecMode, SharedFSUsage

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from unveil import needs
from unveil.assembly.planning import expand_scenes
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.config import (
    load_config,
    read_models,
    read_training,
    select_models,
)
from unveil.errors import InputError
from unveil.jobs import hold_results
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.remote import PLAN, read_plan, write_plan
from unveil.shards import checksum, cut_shards
from unveil.slurm import check_slurm
from unveil.sources.registry import source_of
from unveil.sources.stac.lock import lock_path, make_request, stac_settings

PACKAGE = Path(workflow.basedir) / "scripts" / "unveil"
# Where results are kept in a store, imagery is kept there in archives. Jobs on machines that
# share no file system know nothing else of it, and cannot look at input files: unveil.remote.
SHARED = SharedFSUsage.INPUT_OUTPUT in workflow.storage_settings.shared_fs_usage
STORED = not SHARED or workflow.storage_settings.default_storage_provider is not None
ELSEWHERE = not SHARED and workflow.exec_mode != ExecMode.DEFAULT
COMMAND = "snakemake " + " ".join(shlex.quote(word) for word in sys.argv[1:])
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
    TRAINING = (
        read_training(config["training"])
        if Path(config["training"]).exists()
        else {"run": [], "images": {}, "runs": {}}  # nothing to train in this folder
    )
    STAC = stac_settings(config)
    SOURCES = config["sources"] | {"stac": STAC}
    if ELSEWHERE:
        SCENES, SIZES, WEIGHTS, COMMAND = read_plan()
    else:
        SCENES = {
            row.scene: row
            for row in expand_scenes(
                read_scenes(config["scenes"]),
                ProtocolSettings(config["seed"], config["masks"]["dilate_px"]),
                Path(config["cache"]),
            )
        }
        SIZES = {
            scene: source_of(row).input_bytes(row, SOURCES)
            for scene, row in SCENES.items()
        }
        paths = {row.get("weights", "") for row in MODELS.values()}
        WEIGHTS = {
            path: Path(path).stat().st_size for path in paths if Path(path).is_file()
        }
    if STORED and Path(config["results"]).is_absolute():
        raise InputError(
            "an absolute path, but results are kept in a store",
            file=CONFIG_FILE,
            field="results",
            remedy="give a path from the working directory; it is kept in the store",
        )
    if not SHARED and not ELSEWHERE:
        write_plan(SCENES, SIZES, WEIGHTS, COMMAND)
        # Snakemake sends these with the workflow's own files, tracked by git or not.
        workflow.configfiles += [str(PLAN), config["models"]]
except InputError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"]
HOME = f"{RESULTS}/scenes"
SHARDS = cut_shards(
    SIZES,
    scenes=config["inference"]["shard_size"],
    megabytes=config["inference"]["shard_mb"],
)
READY_SHARDS = [f"{RESULTS}/shards/{shard}/scene.json" for shard in SHARDS]
RUNNING_NETWORKS = [
    model
    for model, row in MODELS.items()
    if model in NETWORKS and row.get("weights") in WEIGHTS
]
LIGHT_NETWORKS = [
    model
    for model in RUNNING_NETWORKS
    if WEIGHTS[MODELS[model]["weights"]]
    < config["inference"]["light_network_mb"] * 10**6
]
METHODS = [model for model in MODELS if model not in RUNNING_NETWORKS]
# Starting takes longer than many a model, so models that need little share a job.
BATCHES = {model: [model] for model in RUNNING_NETWORKS if model not in LIGHT_NETWORKS}
BATCHES |= {"_networks": LIGHT_NETWORKS} if LIGHT_NETWORKS else {}
BATCHES |= {"_methods": METHODS} if METHODS else {}
# On a large scene, every model has a job of its own.
JOBS = [
    (batch, shard)
    for shard, scenes in SHARDS.items()
    for batch in (
        MODELS
        if sum(map(SIZES.get, scenes)) > config["inference"]["shard_mb"] * 10**6
        else BATCHES
    )
]
DETECTION = {
    key: config["masks"][key]
    for key in ("cloud_probability", "average_over", "dilate_px")
}
COMMON_CODE = (
    "bands",
    "classes",
    "config",
    "errors",
    "inputs",
    "jobs",
    "protocols",
    "raster",
    "scene",
)


wildcard_constraints:
    batch=r"_methods|_networks|[A-Za-z0-9][A-Za-z0-9._-]*",
    shard=r"shard-\d+",


@cache
def code(*stages):
    """Return a checksum of the package's files behind some stages: editing one reruns them."""
    files = [PACKAGE / f"{name}.py" for name in COMMON_CODE]
    for stage in stages:
        path = PACKAGE / stage
        files += (
            sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        )
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def get_rows(wildcards):
    """Give the rows of a shard's scenes as plain values."""
    return [vars(SCENES[scene]) for scene in SHARDS[wildcards.shard]]


def get_stamp(wildcards):
    """Sum up the files that a shard is assembled from: when one changes, so does this."""
    if ELSEWHERE:
        return ""  # kept is what it was where the workflow was started
    rows = [SCENES[scene] for scene in SHARDS[wildcards.shard]]
    return checksum([source_of(row).stamps(row) for row in rows])


def searched_scenes(shard):
    """List the scenes of a shard that are searched in a catalogue."""
    return [scene for scene in SHARDS[shard] if source_of(SCENES[scene]).searched]


def get_locks(wildcards):
    """List the locks of those scenes of a shard that are searched."""
    scenes = searched_scenes(wildcards.shard)
    return [local(lock_path(scene, STAC)) for scene in scenes]


def get_lock(wildcards):
    """Give the lock of a scene that is searched."""
    return local(lock_path(wildcards.scene, STAC))


def get_source_settings(wildcards):
    """Give the settings of a shard's sources, so that reruns stay narrow."""
    if get_locks(wildcards):
        return SOURCES
    return {key: value for key, value in config["sources"].items() if key != "stac"}


def get_request(wildcards):
    """Give what a scene asks of a search."""
    return make_request(SCENES[wildcards.scene], STAC)


def get_models(wildcards):
    """Give the models of a batch, with their rows of the table."""
    return {m: MODELS[m] for m in BATCHES.get(wildcards.batch, [wildcards.batch])}


def get_weights(wildcards):
    """Give the weights that are there; a model without them skips its scenes."""
    paths = {row.get("weights") for row in get_models(wildcards).values()}
    return [local(path) for path in sorted(paths & WEIGHTS.keys())]


def get_damaged(wildcards):
    """Tell whether published weights that are there fail their checksum: fetch them again."""
    from unveil.weights.fetch import is_damaged  # other targets need not load it

    return is_damaged(PUBLISHED[wildcards.weights_file], WEIGHTS_FOLDER)


def one_of(batches):
    """Write the wildcard of some batches into a path; a store heeds no other constraint."""
    names = "|".join(name.replace(".", "[.]") for name in sorted(batches))
    return f"{{batch,{names or '-'}}}"


@cache
def size_of_scene(scene):
    """Find out how large a scene will be."""
    row = SCENES[scene]
    return source_of(row).size(row, SOURCES)


def what_is_asked(need, stage):
    """Let a rule ask for memory or time by its scenes and models, and for more when retried."""

    def asked(wildcards, attempt, threads):
        sizes = [size_of_scene(scene) for scene in SHARDS[wildcards.shard]]
        models = get_models(wildcards) if "batch" in wildcards.keys() else {}
        running = [m for m in models if m not in NETWORKS or m in RUNNING_NETWORKS]
        kinds = [MODELS[m]["kind"] for m in running] if stage == "infer" else []
        # one score after another; models are a factor of inference by their kinds
        sizes *= len(models) if stage == "score" else 1
        meeting = {"at_once": threads} if need is needs.memory_mb and not models else {}
        return need(stage, sizes, kinds=kinds, attempt=attempt, **meeting)

    return asked


def memory(stage):
    """Ask for the memory that a stage needs, and twice as much after each failure."""
    return what_is_asked(needs.memory_mb, stage)


def minutes(stage):
    """Ask for the time that a stage needs, and twice as much after each failure."""
    return what_is_asked(needs.minutes, stage)


def tile_memory(wildcards, attempt, threads):
    """Ask for what a model needs, at most what tiles are cut to fit in."""
    needed = memory("infer")(wildcards, 1, threads)
    return min(needed, config["inference"]["memory_mb"]) * 2 ** (attempt - 1)


def doubling(value):
    """Ask for a value, and for twice as much after each failure."""
    return lambda wildcards, attempt: value * 2 ** (attempt - 1)


FETCH_MINUTES = 720  # whole JPEG 2000 of a catalogue come slowly


def assembly_minutes(wildcards, attempt, threads):
    """Ask for the time of assembling, and of fetching where no other job does that."""
    fetching = (
        FETCH_MINUTES if get_locks(wildcards) and not get_fetched(wildcards) else 0
    )
    return max(fetching, minutes("assemble_scene")(wildcards, attempt, threads))


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
    return [local(f["path"]) for f in files if "url" not in f and "package" not in f]
