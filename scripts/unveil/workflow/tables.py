"""What a run is asked to do: the tables that its config names, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unveil.assembly.named_dates import require_dates
from unveil.assembly.planning import expand_scenes
from unveil.assembly.protocols.base import ProtocolSettings
from unveil.assembly.scene_table import read_scenes
from unveil.config import (
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
from unveil.records import checksum
from unveil.sources.registry import source_of
from unveil.sources.selection import Limits
from unveil.sources.stac.lock import stac_settings
from unveil.workflow.plan import read_plan

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
    planned: bool = False
    elsewhere: frozenset[str] = frozenset()


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
    scenes = {
        row.scene: row
        for row in expand_scenes(rows, settings, Path(config["cache"]), limits=limits)
    }
    require_distinct(scenes, file=config["scenes"], field="scene")
    require_dates(scenes.values(), window_days=config["sources"]["selection"]["window_days"])
    return replace(
        tables,
        scenes=scenes,
        sizes={scene: source_of(row).input_bytes(row, sources) for scene, row in scenes.items()},
        weights=_find_weights(tables.models.values()),
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
        tables, scenes=scenes, sizes=sizes, weights=weights, command=command, planned=True
    )


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
    models = read_models(locate(config["models"]))
    models = select_models(models, config["run_models"], file=file)
    _require_environments(models, file=config["models"])
    facts = {model: facts_of(ModelSpec.from_row(model, row)) for model, row in models.items()}
    training = Path(locate(config["training"]))
    return Tables(
        models=models,
        networks=frozenset(model for model, known in facts.items() if known.network),
        elsewhere=frozenset(model for model, known in facts.items() if not known.here),
        training=read_training(training) if training.exists() else NO_TRAINING,
        stac=stac_settings(config),
        scenes={},
        sizes={},
        weights={},
        command="",
    )


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
