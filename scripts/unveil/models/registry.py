"""The registry: which class implements which kind of model; imported only when used.

A kind with a colon is a user's own (:mod:`unveil.models.own`) and needs no line here.
"""

from __future__ import annotations

import importlib
from typing import Any

from unveil.errors import InputError, did_you_mean
from unveil.models.base import Facts, Model, ModelSpec

_CLASSES: dict[str, str] = {
    "cloudy": "unveil.models.classical:Cloudy",
    "least_cloudy": "unveil.models.classical:LeastCloudy",
    "mosaic": "unveil.models.classical:Mosaic",
    "nearest": "unveil.models.classical:Nearest",
    "linear": "unveil.models.classical:Linear",
    "median": "unveil.models.classical:Median",
    "damped": "unveil.models.classical:Damped",
    "clear_mean": "unveil.models.clear_mean:ClearMean",
    "inpaint": "unveil.models.inpaint:Inpaint",
    "mnspi": "unveil.models.mnspi:Mnspi",
    "regressed": "unveil.models.regressed:Regressed",
    "external": "unveil.models.external:External",
    "dsen2cr": "unveil.models.dsen2cr.model:Dsen2Cr",
    "uncrtaints": "unveil.models.uncrtaints:UnCRtainTS",
    "utilise": "unveil.models.utilise:UTilise",
    "anytimeformer": "unveil.models.anytimeformer.model:AnytimeFormer",
    "vpint2": "unveil.models.vpint2:VPint2",
    "medoid": "unveil.models.temporal:Medoid",
    "geomedian": "unveil.models.temporal:Geomedian",
    "whittaker": "unveil.models.temporal:Whittaker",
    "closed_form": "unveil.models.chronos.closed_form:ClosedForm",
    "robust_line": "unveil.models.robust_line:RobustLine",
    "harmonic": "unveil.models.harmonic:Harmonic",
    "led_frames": "unveil.models.led_frames:LedFrames",
    "chronos": "unveil.models.chronos.model:Chronos",
}


_OWN = "unveil.models.own:load_class"


def kinds() -> tuple[str, ...]:
    """Return every kind of its own; ``config/models.yaml`` may name files and packages, too."""
    return tuple(_CLASSES)


def is_own(kind: str) -> bool:
    """Whether a kind is a user's own: a file or a module, and a class."""
    return ":" in kind


def class_path(kind: str) -> str:
    """Return ``module:Class`` of a kind.

    Raises:
        InputError: if the kind is unknown; the message names the nearest one.
    """
    if kind in _CLASSES:
        return _CLASSES[kind]
    remedy = did_you_mean(kind, kinds())
    if kind.endswith(".py"):
        remedy = f"name the class in it, too: {kind}:CLASS"
    raise InputError(f"unknown kind {kind!r}", file="models table", field="kind", remedy=remedy)


def model_class(kind: str) -> type[Model]:
    """Import and return the class that implements a kind.

    Raises:
        InputError: if the kind is unknown, or an own class is not there or is no model.
    """
    if is_own(kind):
        return _own().load_class(kind)
    module, _, name = class_path(kind).partition(":")
    return getattr(importlib.import_module(module), name)


def create(spec: ModelSpec) -> Model:
    """Return the model that a row of ``config/models.yaml`` describes, not yet loaded.

    Raises:
        InputError: if the kind is unknown, an own class will not do, or an option is wrong.
    """
    if is_own(spec.kind):
        return _own().create_own(spec)
    return model_class(spec.kind)(spec)


def facts_of(spec: ModelSpec) -> Facts:
    """Return what is known of a model before it runs.

    Raises:
        InputError: as :func:`create`; not for an own class whose packages are in an environment
            of its own, and not here.
    """
    return _own().facts_of_own(spec) if is_own(spec.kind) else create(spec).facts


def _own() -> Any:
    return importlib.import_module(_OWN.partition(":")[0])
