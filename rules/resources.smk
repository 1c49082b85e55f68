"""What jobs ask for: memory, minutes and threads, by their scenes and models."""

from unveil.workflow import resources as requests
from unveil.workflow.measured import kept_cost

# On two cores one job computes while the other starts TensorFlow, which takes one core.
TWO_CORES = workflow.resource_settings.cores == 2 and not workflow.remote_exec
INFER_THREADS = 1 if TWO_CORES else 2
FETCH_MINUTES = 720  # whole JPEG 2000 of a catalogue come slowly


@cache
def size_of_scene(scene):
    """Find out how large a scene will be."""
    row = TABLES.scenes[scene]
    return source_of(row).size(row, SOURCES)


@cache
def sizes_of(scenes):
    """Find out how large the scenes of a shard will be."""
    return tuple(size_of_scene(scene) for scene in scenes)


@cache
def kind_of(model):
    """Give the kind of a model, or what one of a user's own was measured to cost."""
    kind = ROWS[model]["kind"]
    return (is_own(kind) and kept_cost(Path(COSTS), model)) or kind


def what_is_asked(need, stage):
    """Let a rule ask for memory or time by its scenes and models, and for more when retried."""

    def asked(wildcards, attempt, threads):
        sizes = sizes_of(get_scenes(wildcards))
        models = get_models(wildcards) if "batch" in wildcards.keys() else {}
        running = [
            m
            for m in models
            if m not in TABLES.networks
            or m in DIVISION.networks
            or m in TABLES.candidates
        ]
        kinds = tuple(kind_of(m) for m in running) if stage == "infer" else ()
        # one score after another; models are a factor of inference by their kinds
        sizes = sizes * len(models) if stage == "score" else sizes
        meeting = (
            {"at_once": threads} if need is requests.memory_mb and not models else {}
        )
        return estimate(need, stage, sizes, kinds=kinds, attempt=attempt, **meeting)

    return asked


@cache
def estimate(need, stage, sizes, **circumstances):
    """Say what is needed; most shards have scenes of the same sizes."""
    return need(stage, sizes, **circumstances)


def memory(stage):
    """Ask for the memory that a stage needs, and twice as much after each failure."""
    return what_is_asked(requests.memory_mb, stage)


def minutes(stage):
    """Ask for the time that a stage needs, and twice as much after each failure."""
    return what_is_asked(requests.minutes, stage)


def tile_memory(wildcards, attempt, threads):
    """Ask for what a model needs, at most what tiles are cut to fit in."""
    needed = memory("infer")(wildcards, 1, threads)
    return min(needed, config["inference"]["memory_mb"]) * 2 ** (attempt - 1)


def assembly_minutes(wildcards, attempt, threads):
    """Ask for the time of assembling, and of fetching what a search found."""
    fetching = FETCH_MINUTES if searched_scenes(wildcards) else 0
    return max(fetching, minutes("assemble_scene")(wildcards, attempt, threads))


def doubling(value):
    """Ask for a value, and for twice as much after each failure."""
    return lambda wildcards, attempt: value * 2 ** (attempt - 1)
