"""What rules ask by their wildcards: scenes, models and files behind a name."""


def get_scenes(wildcards):
    """List the scenes of a shard."""
    try:
        return scenes_of(wildcards.shard, DIVISION, TABLES)
    except InputError as error:
        raise WorkflowError(str(error)) from None


def get_models(wildcards):
    """Give the models of a batch, with their rows of the table."""
    try:
        models = models_of(wildcards.batch, DIVISION, TABLES)
    except InputError as error:
        raise WorkflowError(str(error)) from None
    return {model: ROWS[model] for model in models}


@cache
def code_of_model(model):
    """Return the checksum of the code behind a model; that of others is no part."""
    return code_of_row(ROWS[model])


def get_code(wildcards):
    """Give the code behind each model of a batch."""
    return {model: code_of_model(model) for model in get_models(wildcards)}


def get_environment(wildcards):
    """Give the conda environment of a batch: its own, or that of all inference."""
    return environment_of(first_model(wildcards))


def get_container(wildcards):
    """Give the container of a batch, if it has one of its own."""
    return first_model(wildcards).get("container")


def first_model(wildcards):
    """Give the first row of a batch; its models share an environment, or have none."""
    return next(iter(get_models(wildcards).values()))


def environment_of(row):
    """Give the conda environment of a model: its own, or that of all inference."""
    own = row.get("conda")
    return str(Path(own).resolve()) if own else "../envs/inference.yaml"


def get_options(wildcards):
    """Give what decides the answers of each model of a batch."""
    return {
        model: {key: row[key] for key in ("kind", "weights", "options") if key in row}
        for model, row in get_models(wildcards).items()
    }


def get_weights(wildcards):
    """Give the weights that are there; a model without them skips its scenes."""
    paths = {row.get("weights") for row in get_models(wildcards).values()}
    return sorted(paths & TABLES.weights.keys())


def searched_scenes(wildcards):
    """List the scenes of a shard that are searched in a catalogue."""
    scenes = get_scenes(wildcards)
    return [scene for scene in scenes if source_of(TABLES.scenes[scene]).searched]


def get_locks(wildcards):
    """List the locks of those scenes of a shard that are searched."""
    locks = [
        lock_of(TABLES.scenes[scene], STAC) for scene in searched_scenes(wildcards)
    ]
    return list(dict.fromkeys(locks))


def place_record(place):
    """Name the file that says a public place is there."""
    from unveil.places.table import RECORD, folder_of

    return str(folder_of(place, config["cache"]) / RECORD)


def get_places(wildcards):
    """List the records of the public places that a shard's scenes show."""
    rows = [TABLES.scenes[scene] for scene in get_scenes(wildcards)]
    return sorted({place_record(row.path) for row in rows if source_of(row).made})


def get_source_settings(wildcards):
    """Give the settings of a shard's sources, so that reruns stay narrow."""
    if searched_scenes(wildcards):
        return SOURCES
    return {key: value for key, value in config["sources"].items() if key != "stac"}


def get_training_sources(wildcards):
    """Give the facts of the series and images that a run uses, by id."""
    run = TABLES.training["runs"][wildcards.run]
    known = TABLES.training["images"] | TABLES.training["series"]
    used = [*run.get("series", {}), *run.get("held_out", []), *run["images"]]
    return {name: known[name] for name in used}


def get_training_images(wildcards):
    """List the files of the series and images that a run uses."""
    return [
        (
            f"<results>/training/images/{name}.tif"
            if name in TABLES.training["images"]
            else f"<results>/training/series/{name}.npz"
        )
        for name in get_training_sources(wildcards)
    ]


def get_series_files(wildcards):
    """List the local files of a series; those with an address are fetched."""
    files = TABLES.training["series"][wildcards.series]["files"]
    return [local(f["path"]) for f in files if "url" not in f and "package" not in f]


def get_damaged(wildcards):
    """Tell whether published weights that are there fail their checksum: fetch them again."""
    from unveil.weights.fetch import is_damaged  # other targets need not load it

    return is_damaged(PUBLISHED[wildcards.weights_file], WEIGHTS_FOLDER)


@cache
def checked(model):
    """Read the row of a model that is checked; it need not be among those that run."""
    try:
        table = read_model(config, model, file=CONFIG_FILE)
        require_deployed(table, DEPLOYED)
    except InputError as error:
        raise WorkflowError(str(error)) from None
    return table


def checked_row(wildcards):
    """Give the row of the model that is checked."""
    return checked(wildcards.model).models[wildcards.model]


def get_pages(wildcards):
    """Name the page of the model that the config names, and its record."""
    if not config["model"]:
        raise WorkflowError(
            "No model is named. Remedy: snakemake check_model --config model=ID, "
            f"with an id of {config['models']}."
        )
    checked(config["model"])  # says what is wrong before the first job
    folder = f"{config['results']}/check_model/{config['model']}"
    return {"page": f"{folder}/index.html", "record": f"{folder}/check.json"}


def dates_of(wildcards):
    """List the shards of a product's dates.

    Raises:
        WorkflowError: if its catalogue was not searched yet, so that nothing tells its dates.
    """
    shards = DIVISION.products[wildcards.product]
    if not shards:
        raise WorkflowError(
            f"scene {wildcards.product}: its catalogue was not searched yet, so that nothing tells "
            "its dates. Remedy: run `snakemake search` with the same --configfile first."
        )
    return shards


def tables_of_judges(wildcards, ending):
    """List tables of the scenes by which a place judges models itself."""
    shards = DIVISION.judges.get(wildcards.product, ())
    return [f"<results>/metrics/{CANDIDATES}/{shard}{ending}" for shard in shards]


def product_of(shard):
    """Return the product that a shard of dates belongs to."""
    return next(name for name, cut in DIVISION.products.items() if shard in cut)


def delivering():
    """Name the row of a delivery that the config names."""
    model = config["model"]
    if not model:
        raise WorkflowError(
            "No delivery is named. Remedy: snakemake check_delivery --config model=ID, "
            f"with an id of kind external of {config['models']}."
        )
    if checked(model).models[model]["kind"] != "external":
        raise WorkflowError(
            f"Model {model!r} is of kind {checked(model).models[model]['kind']!r}. Remedy: name a "
            f"row of kind external of {config['models']}; check_model checks the others."
        )
    return model


def delivered_files(model):
    """List the files of a delivery that are there."""
    options = checked(model).models[model].get("options", {})
    if options.get("collection"):
        folder, named = Path(options["collection"]).parent, [options["collection"]]
    else:
        folder, named = Path(options["folder"]), []
    return seen([*named, *sorted(folder.rglob("*.tif"))])
