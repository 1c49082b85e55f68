"""Where results are kept in a store: archives of imagery, declared there alone.

Jobs that share no file system also need archives of the input, and of weights: 'sent'.
"""

from types import SimpleNamespace


def carried(*paths):
    """Declare archives below the results; none where no store keeps them."""
    return [f"{RESULTS}/{path}" for path in paths] if STORED else []


def sent(*names):
    """Declare archives of what lies where the workflow was started, unless all machines see it."""
    return [] if SHARED else carried(*(f"sent/{name}.tar" for name in names))


# An absolute path is a folder that every machine mounts: it needs no store.
CACHE_STORED = STORED and not Path(config["cache"]).is_absolute()


def fetched(*names):
    """Declare archives of what was fetched; none where the folder of the cache is all there is."""
    return [f"{config['cache']}/fetched/{name}.tar" for name in names if CACHE_STORED]


def get_fetched(wildcards):
    """List the archives of the scenes of a shard that are fetched from a catalogue."""
    scenes = searched_scenes(wildcards.shard)
    return fetched(*(f"scenes/{scene}" for scene in scenes))


def beside(*names):
    """Declare files of the repository, which travel with the workflow where nothing is shared."""
    folder = f"{HERE}/resources"
    return [local(f"{folder}/{name}") for name in names] if SHARED else []


def scene_archives(shard="{shard}"):
    """Declare all that a shard's scenes consist of, once they are ready for analysis."""
    names = ("download", "masks", "scene", "facts")
    return carried(*(f"shards/{shard}/{name}.tar" for name in names))


FACTS = carried(*(f"shards/{shard}/facts.tar" for shard in SHARDS))


def sent_weights(batch):
    """Declare the archive of a batch's weights, if it has any."""
    if get_weights(SimpleNamespace(batch=batch)):
        return sent(f"weights-{batch}")
    return []


def get_archives(wildcards):
    """List the archives of a shard's scenes and of a batch's weights."""
    return scene_archives(wildcards.shard) + sent_weights(wildcards.batch)


SENT_WEIGHTS = [path for batch in dict(JOBS) for path in sent_weights(batch)]


def shards_of_picture():
    """Take shards from the first on until they hold as many scenes as the picture shows."""
    taken, scenes = [], 0
    for shard, names in SHARDS.items():
        if scenes < config["report"]["max_scenes_in_picture"]:
            taken.append(shard)
            scenes += len(names)
    return taken


PICTURED = shards_of_picture() if STORED else []
PICTURE_ARCHIVES = [path for shard in PICTURED for path in scene_archives(shard)]
PICTURE_ARCHIVES += carried(
    *(f"inference/{batch}/{shard}.tar" for batch, shard in JOBS if shard in PICTURED)
)


def disk(megabytes):
    """Ask for disk, and where imagery travels for room for it, packed and unpacked.

    Rasters are at most twice as large as the input, and predictions half as large.
    """
    if SHARED:
        return megabytes

    def asked(wildcards):
        models = get_models(wildcards) if "batch" in wildcards.keys() else ()
        return megabytes + (2 + 4 + len(models)) * size_of_shard(wildcards.shard)

    return asked


def size_of_shard(shard):
    """Give the size of a shard's input in 10^6 bytes."""
    return sum(SIZES[scene] for scene in SHARDS[shard]) // 10**6


def get_watched(wildcards):
    """List the locks of a shard, the lock of a scene, or a batch's weights with their cards."""
    if wildcards.what in SHARDS:
        return get_locks(SimpleNamespace(shard=wildcards.what))
    if wildcards.what.startswith("lock-"):
        return [local(lock_path(wildcards.what.removeprefix("lock-"), STAC))]
    batch = wildcards.what.removeprefix("weights-")
    weights = get_weights(SimpleNamespace(batch=batch))
    cards = [Path(path).with_suffix(".json") for path in weights]
    return [*weights, *(local(str(card)) for card in cards if card.is_file())]


def get_stamp_to_send(wildcards):
    """Sum up the input files of a shard; those of weights are watched one by one."""
    if wildcards.what not in SHARDS:
        return ""
    return get_stamp(SimpleNamespace(shard=wildcards.what))


def get_files_to_send(wildcards, input):
    """List what other machines need, but for what they find by an absolute path."""
    rows = [SCENES[scene] for scene in SHARDS.get(wildcards.what, ())]
    files = {path for row in rows for path, _, _ in source_of(row).stamps(row)} | set(
        input
    )
    return sorted(path for path in files if not Path(path).is_absolute())
