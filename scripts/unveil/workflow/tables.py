"""What a run is asked to do: the tables that its config names, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unveil.assembly.named_dates import require_dates
from unveil.assembly.planning import expand_scenes, plan_judges
from unveil.assembly.product_dates import as_product, is_series, plan_dates
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.cloudfree.choice import RECOMMENDED, mean_by_model, read_ranking
from unveil.config import (
    REPOSITORY,
    SceneRow,
    locate,
    read_models,
    read_training,
    require_distinct,
    select_models,
)
from unveil.errors import InputError
from unveil.models.base import ModelSpec
from unveil.models.registry import facts_of
from unveil.protocols import PROTOCOLS
from unveil.records import checksum
from unveil.sources.registry import source_of
from unveil.sources.selection import Limits
from unveil.sources.stac.lock import stac_settings
from unveil.workflow.plan import read_plan

RANKING = REPOSITORY / "resources" / "ranking.tsv"
MOST_CANDIDATES = 6
"""Models that a place judges itself: the best of other places."""
NO_TRAINING: dict[str, Any] = {"run": [], "images": {}, "series": {}, "runs": {}}


@dataclass(frozen=True)
class Tables:
    """The tables of a run.

    Attributes:
        models: id -> row of the models that run, in their order.
        networks: those of them that load weights.
        training: what may be trained.
        stac: settings of searches.
        scenes: id -> row, planned.
        sizes: scene id -> bytes of its input.
        weights: path of weights that are there -> bytes.
        command: the command line of the run.
        products: row of the scene table without a truth -> ids of its scenes, one per date; empty
            where its catalogue was not searched yet.
        judges: product -> ids of the scenes by which its place judges models itself.
        searches: name of a lock -> a row that it is searched for.
        candidates: id -> row of the models that may make products, in order of preference.
        planned: whether scenes, sizes and weights were learnt on another machine.
        elsewhere: models whose packages are in an environment of their own, and not here.
    """

    models: Mapping[str, Mapping[str, Any]]
    networks: frozenset[str]
    training: Mapping[str, Any]
    stac: Mapping[str, Any]
    scenes: Mapping[str, SceneRow]
    sizes: Mapping[str, int]
    weights: Mapping[str, int]
    command: str
    products: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    judges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    searches: Mapping[str, SceneRow] = field(default_factory=dict)
    candidates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    planned: bool = False
    elsewhere: frozenset[str] = frozenset()

    @property
    def judged(self) -> dict[str, int]:
        """Size of the input of every scene that the report is about, all but dates of products."""
        return {name: size for name, size in self.sizes.items() if not self.scenes[name].product}


def read_tables(config: Mapping[str, Any], *, file: str, command: str) -> Tables:
    """Read the tables of a run, and look at its input files.

    Args:
        config: the whole configuration.
        file: the name that errors give it.
        command: the command line of the run.

    Raises:
        InputError: whatever is wrong with the tables or the input.
    """
    tables = _read_what_travels(config, file=file)
    settings = ProtocolSettings(config["seed"])
    sources = config["sources"] | {"stac": tables.stac}
    limits = Limits(**config["sources"]["selection"])
    rows = read_scenes(locate(config["scenes"]))
    cache = Path(config["cache"])
    dated = [date for row in rows for date in plan_dates(row, sources)]
    scenes = {row.scene: row for row in expand_scenes(dated, settings, cache, limits=limits)}
    if config["cloudfree"]["model"] == RECOMMENDED:
        for row in map(as_product, filter(is_series, rows)):
            scenes |= {s.scene: s for s in plan_judges(row, settings, cache, limits)}
    require_distinct(scenes, file=config["scenes"], field="scene")
    require_dates(scenes.values(), window_days=config["sources"]["selection"]["window_days"])
    return replace(
        tables,
        scenes=scenes,
        products=_products(rows, scenes.values()),
        judges=_judges(scenes.values()),
        searches=_searches([*scenes.values(), *map(as_product, filter(is_series, rows))]),
        sizes={scene: source_of(row).input_bytes(row, sources) for scene, row in scenes.items()},
        weights=_find_weights([*tables.models.values(), *tables.candidates.values()]),
        command=command,
    )


def read_model(config: Mapping[str, Any], model: str, *, file: str) -> Tables:
    """Read one row of the models table, whether it runs or not.

    Args:
        config: the whole configuration.
        model: its id.
        file: the name that errors give the configuration.

    Raises:
        InputError: if there is no such row, or it will not do.
    """
    return _read_what_travels({**config, "run_models": [model]}, file=file)


def read_planned_tables(config: Mapping[str, Any], *, file: str) -> Tables:
    """Read the tables of a run on a machine that cannot see its input files.

    What the machine that started the run learnt from them came with the workflow's own files
    (:func:`unveil.workflow.plan.write_plan`).

    Args:
        config: the whole configuration.
        file: the name that errors give it.

    Raises:
        InputError: whatever is wrong with the tables.
    """
    scenes, sizes, weights, command = read_plan()
    tables = _read_what_travels(config, file=file)
    return replace(
        tables,
        scenes=scenes,
        products=_products([], scenes.values()),
        judges=_judges(scenes.values()),
        sizes=sizes,
        weights=weights,
        command=command,
        planned=True,
    )


def _products(rows: Iterable[SceneRow], scenes: Iterable[SceneRow]) -> dict[str, tuple[str, ...]]:
    """Return the scenes of every row without a truth that names its dates."""
    found: dict[str, tuple[str, ...]] = {row.scene: () for row in rows if is_series(row)}
    for row in scenes:
        if PROTOCOLS[row.protocol].truth == "none" and row.target_date != "auto":
            name = row.product or row.scene
            found[name] = (*found.get(name, ()), row.scene)
    return found


def _judges(scenes: Iterable[SceneRow]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for row in scenes:
        if row.product and PROTOCOLS[row.protocol].truth != "none":
            found[row.product] = (*found.get(row.product, ()), row.scene)
    return found


def _searches(rows: Iterable[SceneRow]) -> dict[str, SceneRow]:
    """Return what is searched, by the name of its lock."""
    return {row.product or row.scene: row for row in rows if source_of(row).searched}


def stamp_of(scenes: Iterable[str], tables: Tables) -> str:
    """Sum up the input files of some scenes: when one changes, so does this.

    Where they cannot be seen, it is empty: what is kept is what it was where the run was started.
    """
    if tables.planned:
        return ""
    return checksum(
        [source_of(tables.scenes[scene]).stamps(tables.scenes[scene]) for scene in scenes]
    )


def _read_what_travels(config: Mapping[str, Any], *, file: str) -> Tables:
    known = read_models(locate(config["models"]))
    models = select_models(known, config["run_models"], file=file)
    candidates = _candidates(known, config, file=file)
    every = candidates | models
    _require_environments(every, file=config["models"])
    facts = {model: facts_of(ModelSpec.from_row(model, row)) for model, row in every.items()}
    training = Path(locate(config["training"]))
    return Tables(
        models=models,
        networks=frozenset(model for model, known in facts.items() if known.network),
        elsewhere=frozenset(model for model in models if not facts[model].here),
        candidates=candidates,
        training=read_training(training) if training.exists() else NO_TRAINING,
        stac=stac_settings(config),
        scenes={},
        sizes={},
        weights={},
        command="",
    )


def _candidates(
    known: dict[str, dict[str, Any]], config: Mapping[str, Any], *, file: str
) -> dict[str, dict[str, Any]]:
    """Return the models that may make products: the one that is named, or the best elsewhere.

    A table of models without any that was judged elsewhere leaves those that run.

    Raises:
        InputError: if the config names a model that is not in the table.
    """
    wish = config["cloudfree"]["model"]
    if wish != RECOMMENDED:
        return select_models(known, [wish], file=file, field="cloudfree.model")
    ranked = [model for model in mean_by_model(read_ranking(RANKING)) if model in known]
    return select_models(known, ranked[:MOST_CANDIDATES] or config["run_models"], file=file)


def _require_environments(models: Mapping[str, Mapping[str, Any]], *, file: str) -> None:
    """Refuse files of environments that are not there."""
    for model, row in models.items():
        if "conda" in row and not Path(row["conda"]).is_file():
            raise InputError(
                f"file not found: {row['conda']}",
                file=file,
                field=f"{model}.conda",
                remedy=f"give its path from the working directory, which is {Path.cwd()}",
            )


def require_deployed(tables: Tables, deployed: Iterable[str]) -> None:
    """Refuse models whose packages are neither here nor in what their jobs will run in.

    Args:
        tables: the tables of the run.
        deployed: ways of deploying software that Snakemake was told, as in ``--sdm``.

    Raises:
        InputError: naming the first such model, and what to add to the command.
    """
    for model in sorted(tables.elsewhere):
        row = tables.models[model]
        way = "conda" if "conda" in row else "apptainer"
        if way not in deployed:
            raise InputError(
                f"what {row['kind']} imports is not installed here, and the environment that it "
                "names is not used",
                file="models table",
                field=f"{model}.{'conda' if 'conda' in row else 'container'}",
                remedy=f"add --sdm {way} to the command, or install it where Unveil runs",
            )


def _find_weights(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    paths = {row["weights"] for row in rows if "weights" in row}
    return {path: Path(path).stat().st_size for path in paths if Path(path).is_file()}


def refuse_absolute_results(config: Mapping[str, Any], *, file: str) -> None:
    """Refuse results that a store cannot keep.

    Raises:
        InputError: if they are an absolute path.
    """
    if Path(config["results"]).is_absolute():
        raise InputError(
            "an absolute path, but results are kept in a store",
            file=file,
            field="results",
            remedy="give a path from the working directory; it is kept in the store",
        )
