"""How scenes and models are divided among jobs.

Starting Python and TensorFlow takes longer than a small scene or a small model, so jobs serve
shards of scenes and batches of models; on a large scene, every model has a job of its own.
So has a user's own model, whose code may end the job of others, unless it shares an environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unveil.errors import InputError, did_you_mean
from unveil.models.registry import is_own
from unveil.workflow.shards import cut_shards
from unveil.workflow.tables import Tables

PRODUCT = "_cloudfree"
"""Batch of the models that may make products; the first that answers does."""
CANDIDATES = "_candidates"
"""Batch of the same models where the place judges them: each answers."""
METHODS, NETWORKS = "_methods", "_networks"
"""Batches of all models that load no network, and of all networks with small weights."""
ENVIRONMENT = "_environment-"
"""Before the number of a batch of models that share an environment of their own."""
ALONE = "scene-"
"""Before the id of a scene that is a shard by itself, because a user asks for it alone."""
DATES = "dates-"
"""Before the id of a product whose dates are a shard."""
JUDGES = "judge-"
"""Before the id of a product whose place judges models by the scenes of a shard."""


@dataclass(frozen=True)
class Division:
    """Shards and batches of a run.

    Attributes:
        shards: shard -> ids of its scenes, in the order of the table; without dates of products.
        products: product -> shards of its dates.
        judges: product -> shards of the scenes that judge.
        dates: any of these shards -> ids of its scenes.
        batches: batch -> ids of its models.
        networks: networks whose weights are there; another one only says that they are not.
        jobs: (batch, shard) of every job of inference and of scoring.
    """

    shards: Mapping[str, tuple[str, ...]]
    batches: Mapping[str, tuple[str, ...]]
    networks: tuple[str, ...]
    jobs: tuple[tuple[str, str], ...]
    products: Mapping[str, tuple[str, ...]]
    judges: Mapping[str, tuple[str, ...]]
    dates: Mapping[str, tuple[str, ...]]


def divide(tables: Tables, settings: Mapping[str, Any]) -> Division:
    """Divide scenes and models among jobs.

    Args:
        tables: the tables of the run.
        settings: section ``inference`` of the config.
    """
    limits = {"scenes": settings["shard_size"], "megabytes": settings["shard_mb"]}
    shards = cut_shards(tables.judged, **limits)
    networks = tuple(
        model
        for model, row in tables.models.items()
        if model in tables.networks and row.get("weights") in tables.weights
    )
    apart = _batches_apart(tables.models)
    taken = {model for models in apart.values() for model in models}
    small = tuple(
        model
        for model in networks
        if model not in taken
        and tables.weights[tables.models[model]["weights"]] < settings["light_network_mb"] * 10**6
    )
    methods = tuple(model for model in tables.models if model not in {*networks, *taken})
    batches: dict[str, tuple[str, ...]] = {m: (m,) for m in networks if m not in {*small, *taken}}
    batches |= {NETWORKS: small} if small else {}
    batches |= {METHODS: methods} if methods else {}
    batches |= apart
    large = settings["shard_mb"] * 10**6
    jobs = tuple(
        (batch, shard)
        for shard, scenes in shards.items()
        for batch in (
            tables.models if sum(tables.sizes[scene] for scene in scenes) > large else batches
        )
    )
    products = {
        name: {f"{ALONE}{name}": ids}
        if ids == (name,)
        else _cut(f"{DATES}{name}-", ids, tables, limits)
        for name, ids in tables.products.items()
    }
    judges = {
        name: _cut(f"{JUDGES}{name}-", ids, tables, limits) for name, ids in tables.judges.items()
    }
    cuts = [*products.values(), *judges.values()]
    return Division(
        shards,
        batches,
        networks,
        jobs,
        products={name: tuple(cut) for name, cut in products.items()},
        judges={name: tuple(cut) for name, cut in judges.items()},
        dates={shard: ids for cut in cuts for shard, ids in cut.items()},
    )


def _cut(
    prefix: str, scenes: Iterable[str], tables: Tables, limits: Mapping[str, int]
) -> dict[str, tuple[str, ...]]:
    """Cut the scenes of a product into shards of its own."""
    cut = cut_shards({scene: tables.sizes[scene] for scene in scenes}, **limits)
    return {shard.replace("shard-", prefix): ids for shard, ids in cut.items()}


def _batches_apart(models: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Give own models a batch each, and those of one environment one together."""
    found: dict[tuple[str, str], list[str]] = {}
    for model, row in models.items():
        place = row.get("conda") or row.get("container")
        if place or is_own(row["kind"]):
            found.setdefault(("", place) if place else (model, ""), []).append(model)
    several = [ids for ids in found.values() if len(ids) > 1]
    return {ids[0]: (ids[0],) for ids in found.values() if len(ids) == 1} | {
        f"{ENVIRONMENT}{number}": tuple(ids) for number, ids in enumerate(several, 1)
    }


def with_networks(division: Division) -> tuple[str, ...]:
    """Return the batches in which a network runs."""
    networks = set(division.networks)
    return tuple(batch for batch, models in division.batches.items() if networks & set(models))


def scenes_of(shard: str, division: Division, tables: Tables) -> tuple[str, ...]:
    """Return the scenes of a shard; ``scene-ID`` is a shard of that scene alone.

    Raises:
        InputError: if there is no such shard or scene, with the nearest id.
    """
    for known in (division.shards, division.dates):
        if shard in known:
            return known[shard]
    scene = shard.removeprefix(ALONE)
    if scene == shard or scene not in tables.scenes:
        raise InputError(
            f"no scene or shard {scene!r}",
            field="target",
            remedy=did_you_mean(scene, [*tables.scenes, *division.shards]),
        )
    return (scene,)


def models_of(batch: str, division: Division, tables: Tables) -> tuple[str, ...]:
    """Return the models of a batch; the id of a model is a batch of that model alone.

    Raises:
        InputError: if there is no such batch or model, with the nearest id.
    """
    if batch in (PRODUCT, CANDIDATES):
        return tuple(tables.candidates)
    if batch in division.batches:
        return division.batches[batch]
    if batch not in tables.models:
        raise InputError(
            f"no model {batch!r} runs",
            field="target",
            remedy=did_you_mean(batch, list(tables.models)),
        )
    return (batch,)


ONLY = re.compile(r"(?:.*/)?only/(model|scene)/(.+?)(?:\.skipped)?\.csv")


def check_targets(targets: Iterable[str], division: Division, tables: Tables) -> None:
    """Check that the models and scenes that a user asks for alone are in the tables.

    Args:
        targets: the words that Snakemake was given.
        division: shards and batches of the run.
        tables: its tables.

    Raises:
        InputError: for one that is not, with the nearest id.
    """
    for kind, name in (found.groups() for found in map(ONLY.fullmatch, targets) if found):
        if kind == "model":
            models_of(name, division, tables)
        else:
            scenes_of(f"{ALONE}{name}", division, tables)
