"""What results in a store add to the rules, and jobs on machines that share nothing else.

Imagery is not declared, as it is too much for the graph. In a store it is kept in archives, one a
shard, stage and batch, which rules take and give here besides what they declare. Jobs that see no
file of the working directory also take archives of the input and of weights: 'sent'.
See unveil.workflow.archives.
"""

from unveil.workflow.own_code import files_to_send
from unveil.workflow.plan import PLAN, write_plan
from unveil.workflow.tables import refuse_absolute_results

# An absolute path is a folder that every machine mounts: it needs no store.
CACHE_STORED = not Path(config["cache"]).is_absolute()
ROOM = 2 + 4
"""What a job holds, as a multiple of its input: archives, and rasters at most twice as large."""

try:
    refuse_absolute_results(config, file=CONFIG_FILE)
except InputError as error:
    raise WorkflowError(str(error)) from None
if not SHARED and not ELSEWHERE:
    write_plan(TABLES.scenes, TABLES.sizes, TABLES.weights, TABLES.command)
    # Snakemake sends these with the workflow's own files, tracked by git or not.
    workflow.configfiles += [str(PLAN), config["models"], *files_to_send(TABLES.models)]


# --- what travels ------------------------------------------------------------------------


def sent(*names):
    """Name archives of what lies where the workflow was started, unless all machines see it."""
    return [] if SHARED else [f"<results>/sent/{name}.tar" for name in names]


def fetched(*names):
    """Name archives of what was fetched; none where the folder of the cache is all there is."""
    return [f"{config['cache']}/fetched/{name}.tar" for name in names if CACHE_STORED]


def archives_of(shard="{shard}", parts=("download", "masks", "scene", "facts")):
    """Name all that a shard's scenes consist of, once they are ready for analysis."""
    return [f"<results>/shards/{shard}/{part}.tar" for part in parts]


def get_fetched(wildcards):
    """List the archives of the scenes of a shard that are fetched from a catalogue."""
    return fetched(*(f"scenes/{scene}" for scene in searched_scenes(wildcards)))


def sent_weights(batch):
    """List the archive of a batch's weights, if it has any."""
    found = get_weights(SimpleNamespace(batch=batch))
    return sent(f"weights-{batch}") if found else []


def get_archives(wildcards):
    """List the archives of a shard's scenes and of a batch's weights."""
    return archives_of(wildcards.shard) + sent_weights(wildcards.batch)


def archives_of_product(wildcards):
    """List the archives of the scenes of a product's dates, and of what cleared them."""
    return [
        path
        for shard in dates_of(wildcards)
        for path in (
            *archives_of(shard),
            f"<results>/inference/{PRODUCT}/{shard}.tar",
        )
    ]


def input_mb(shard):
    """Give the size of a shard's input in 10^6 bytes."""
    scenes = get_scenes(SimpleNamespace(shard=shard))
    return sum(TABLES.sizes[scene] for scene in scenes) // 10**6


def shards_of_picture():
    """Take shards from the first on until they hold as many scenes as the picture shows."""
    taken, scenes = [], 0
    for shard, names in DIVISION.shards.items():
        if scenes < config["report"]["max_scenes_in_picture"]:
            taken.append(shard)
            scenes += len(names)
    return taken


FACTS = expand("<results>/shards/{shard}/facts.tar", shard=SHARDS)
PICTURED = shards_of_picture()
PICTURE_ARCHIVES = [path for shard in PICTURED for path in archives_of(shard)]
PICTURE_ARCHIVES += [
    f"<results>/inference/{batch}/{shard}.tar"
    for batch, shard in JOBS
    if shard in PICTURED
]


# --- what each rule takes and gives besides ------------------------------------------------


def travelling(*, names, disk_mb=0, gives=None, params=None, **takes):
    """Let rules take and give archives besides what they declare, with room on disk for them."""
    for name in names:
        changed = getattr(rules, name).rule
        # A rule without input has nothing that would put what it takes into the store.
        changed.input_modifier = changed.input_modifier or changed.output_modifier
        changed.set_input(**takes)
        changed.set_output(**(gives or {}))
        changed.set_params(**(params or {}))
        if disk_mb and not SHARED:
            changed.resources["disk_mb"] = with_room(disk_mb)


def with_room(megabytes):
    """Ask for disk, and for room for imagery, packed and unpacked; predictions are half as large."""

    def asked(wildcards):
        models = get_models(wildcards) if "batch" in wildcards.keys() else ()
        return megabytes + (ROOM + len(models)) * input_mb(wildcards.shard)

    return asked


travelling(
    names=["assemble_scene"],
    archives=sent("{shard}"),
    fetched=get_fetched,
    gives={"archives": archives_of(parts=["download"])},
    disk_mb=4000,
)
travelling(
    names=["mask_scene"],
    archives=archives_of(parts=["download"]),
    gives={"archives": archives_of(parts=["masks"])},
    disk_mb=1000,
)
travelling(
    names=["coregister_scene"],
    archives=archives_of(parts=["download", "masks"]),
    gives={
        "archives": archives_of(parts=["scene"]),
        "facts": archives_of(parts=["facts"]),
    },
    disk_mb=4000,
)
for name, batches in (
    ("infer", ON_GPU),
    ("infer_on_cpu", ON_CPU),
    ("infer_cloudfree", PRODUCT),
):
    travelling(
        names=[name],
        archives=get_archives,
        gives={"archives": [f"<results>/inference/{{batch,{batches}}}/{{shard}}.tar"]},
        disk_mb=4000,
    )
travelling(
    names=["score"],
    archives=get_archives,
    predictions=["<results>/inference/{batch}/{shard}.tar"],
    disk_mb=100,
)
travelling(
    names=["make_cloudfree"],
    archives=archives_of_product,
    gives={"archives": ["<results>/cloudfree/{product}.tar"]},
)
travelling(names=["compare_models"], archives=FACTS)
travelling(
    names=["write_manifest"],
    archives=FACTS + [path for batch in dict(JOBS) for path in sent_weights(batch)],
)
travelling(
    names=["render_report"],
    archives=FACTS + PICTURE_ARCHIVES,
    params={
        "pictured": [scene for shard in PICTURED for scene in DIVISION.shards[shard]]
    },
)
if not SHARED:
    rules.render_report.rule.resources["disk_mb"] = 500 + (
        4 + len(TABLES.models)
    ) * sum(map(input_mb, PICTURED))
if CACHE_STORED:
    # Another job fetches; this one assembles alone.
    rules.assemble_scene.rule.resources["runtime"] = minutes("assemble_scene")


# --- rules that only a store has -------------------------------------------------------------

if not SHARED:

    def get_watched(wildcards):
        """List the locks of a shard, the lock of a scene, or a batch's weights and cards."""
        what = wildcards.what
        if what.startswith("lock-"):
            row = TABLES.searches[what.removeprefix("lock-")]
            return [local(lock_of(row, STAC))]
        if not what.startswith("weights-"):
            return [local(lock) for lock in get_locks(SimpleNamespace(shard=what))]
        batch = what.removeprefix("weights-")
        weights = get_weights(SimpleNamespace(batch=batch))
        cards = [Path(path).with_suffix(".json") for path in weights]
        return [local(str(path)) for path in (*weights, *filter(Path.is_file, cards))]

    def get_sent_scenes(wildcards):
        """List the scenes whose input is sent; none with weights or a lock."""
        what = wildcards.what
        if what.startswith(("lock-", "weights-")):
            return ()
        return get_scenes(SimpleNamespace(shard=what))

    def get_files_to_send(wildcards, input):
        """List what other machines need, but for what they find by an absolute path."""
        rows = [TABLES.scenes[scene] for scene in get_sent_scenes(wildcards)]
        files = {
            path for row in rows for path, _, _ in source_of(row).stamps(row)
        } | set(input)
        return sorted(path for path in files if not Path(path).is_absolute())

    rule send:
        """Pack the input files of a shard, or the weights of a batch, for other machines."""
        input:
            get_watched,
        output:
            archive="<results>/sent/{what}.tar",
        log:
            "<logs>/send/{what}.log",
        wildcard_constraints:
            what=r"shard-\d+|(dates|judge)-.+|scene-.+|lock-.+|weights-.+",
        localrule: True
        conda:
            "../envs/scenes.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=120,
            disk_mb=2000,
        params:
            files=get_files_to_send,
            stamp=lambda wildcards: stamp_of(get_sent_scenes(wildcards), TABLES),
        message:
            "Packing the input of {wildcards.what}"
        script:
            "../scripts/send.py"


if CACHE_STORED:

    # An archive a scene, as a shard's scenes change with the table. What is fetched depends on
    # the lock alone; the settings, such as the number of connections, would fetch it again.
    rule fetch_scene:
        """Fetch what a scene needs of a catalogue's files into an archive."""
        input:
            lock=lambda wildcards: seen([lock_of(TABLES.scenes[wildcards.scene], STAC)]),
            archives=lambda wildcards: sent(
                f"lock-{lock_of(TABLES.scenes[wildcards.scene], STAC).stem}"
            ),
        output:
            archive=fetched("scenes/{scene}")[0],
        log:
            "<logs>/fetch_scene/{scene}.log",
        benchmark:
            "<benchmarks>/fetch_scene/{scene}.tsv"
        conda:
            "../envs/scenes.yaml"
        threads: 1
        resources:
            mem_mb=doubling(2000),
            runtime=FETCH_MINUTES,
            disk_mb=lambda wildcards: 2000 + 2 * TABLES.sizes[wildcards.scene] // 10**6,
        params:
            row=lambda wildcards: vars(TABLES.scenes[wildcards.scene]),
        message:
            "Fetching scene {wildcards.scene}"
        script:
            "../scripts/fetch_scene.py"

    rule store_weights:
        """Fetch one file of published weights into the store, wherever a run is started next."""
        output:
            archives=fetched("weights/{weights_file}"),
        log:
            "<logs>/store_weights/{weights_file}.log",
        localrule: True
        conda:
            "../envs/weights.yaml"
        threads: 1
        resources:
            mem_mb=1000,
            runtime=120,
            disk_mb=1000,
        params:
            entry=lambda wildcards: vars(PUBLISHED[wildcards.weights_file]),
            folder=lambda wildcards: WEIGHTS_FOLDER,  # of this machine: the rule is local
        message:
            "Fetching {wildcards.weights_file} for the store"
        script:
            "../scripts/fetch_weights.py"

    travelling(
        names=["fetch_one_weights"],
        archives=lambda wildcards: (
            fetched(f"weights/{wildcards.weights_file}")
            if PUBLISHED[wildcards.weights_file].url
            else []  # put there by hand alone
        ),
    )
