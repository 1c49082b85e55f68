"""The registry: which class implements which kind of model; imported only when used."""

from __future__ import annotations

import importlib

from unveil.errors import InputError, did_you_mean
from unveil.models.base import Model, ModelSpec

_CLASSES: dict[str, str] = {
    "cloudy": "unveil.models.classical:Cloudy",
    "least_cloudy": "unveil.models.classical:LeastCloudy",
    "mosaic": "unveil.models.classical:Mosaic",
    "nearest": "unveil.models.classical:Nearest",
    "linear": "unveil.models.classical:Linear",
    "median": "unveil.models.classical:Median",
    "damped": "unveil.models.classical:Damped",
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
    "robust_line": "unveil.models.robust_line:RobustLine",
    "harmonic": "unveil.models.harmonic:Harmonic",
    "led_frames": "unveil.models.led_frames:LedFrames",
    "chronos": "unveil.models.chronos.model:Chronos",
}


def kinds() -> tuple[str, ...]:
    """Return every kind that ``config/models.yaml`` may name."""
    return tuple(_CLASSES)


def class_path(kind: str) -> str:
    """Return ``module:Class`` of a kind.

    Raises:
        InputError: if the kind is unknown; the message names the nearest one.
    """
    if kind not in _CLASSES:
        raise InputError(
            f"unknown kind {kind!r}",
            file="models table",
            field="kind",
            remedy=did_you_mean(kind, kinds()),
        )
    return _CLASSES[kind]


def model_class(kind: str) -> type[Model]:
    """Import and return the class that implements a kind.

    Raises:
        InputError: if the kind is unknown.
    """
    module, _, name = class_path(kind).partition(":")
    return getattr(importlib.import_module(module), name)


def create(spec: ModelSpec) -> Model:
    """Return the model that a row of ``config/models.yaml`` describes, not yet loaded.

    Raises:
        InputError: if the kind is unknown.
    """
    return model_class(spec.kind)(spec)
