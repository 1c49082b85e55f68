"""The contract of a model: what it needs, what it gives, when it steps aside.

A model gets :class:`unveil.scene.Inputs` (reflectance, classes, days, radar) and gives
reflectance, with a per-pixel standard deviation if it can. Scale and offset belong to
the model. ``prepare`` sees the scene tile by tile before ``predict`` does, so that a
model with statistics of the whole scene still runs in bounded memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from unveil.distribution import NORMAL, Distribution
from unveil.errors import InputError
from unveil.models.options import NoOptions, parse_options
from unveil.scene import NO_ACQUISITION, Inputs, RadarDates, Scene

Origin = Literal["published", "trained-here", "none", "external"]


NOT_FETCHED = (
    "weights not fetched: run `snakemake fetch_weights`, or give the file as `weights` of this "
    "model in the models table"
)


@dataclass(frozen=True)
class Needs:
    """What a model requires of a scene.

    Attributes:
        bands: bands it must have; empty means it works on whatever bands there are.
        radar: ``required``, ``optional`` or ``unused``.
        min_context: fewest context frames.
        max_context: most context frames it uses (nearest in time are kept); None is all.
        levels: processing levels it is meant for; empty means any.
        target: whether it looks at the image of the target's date; one that can do with the other
            dates alone also answers for days without an acquisition.
    """

    bands: tuple[str, ...] = ()
    radar: Literal["required", "optional", "unused"] = "unused"
    min_context: int = 0
    max_context: int | None = None
    levels: tuple[str, ...] = ()
    target: bool = True


@dataclass(frozen=True)
class Prediction:
    """What a model gives.

    Attributes:
        reflectance: ``(B, H, W)`` float32 reflectance, NaN where it has no answer.
        std: ``(B, H, W)`` float32 standard deviation of reflectance, or None.
        bands: band names when they are not those of the inputs.
        distribution: of the errors that ``std`` is the standard deviation of.
    """

    reflectance: np.ndarray
    std: np.ndarray | None = None
    bands: tuple[str, ...] = ()
    distribution: Distribution = NORMAL


@dataclass(frozen=True)
class ModelSpec:
    """One row of ``config/models.yaml``.

    Attributes:
        id: the model's id in the run.
        kind: the implementation, a key of the registry.
        title: the name printed in figures and tables.
        weights: path of the weights, or None.
        options: options of the kind.
        environment: file or image of an environment of its own, empty without.
    """

    id: str
    kind: str
    title: str = ""
    weights: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    environment: str = ""

    @classmethod
    def from_row(cls, model: str, row: Mapping[str, Any]) -> ModelSpec:
        """Return the row ``model`` of the models table as it was read."""
        weights = row.get("weights")
        return cls(
            id=model,
            kind=row["kind"],
            title=row.get("title", model),
            weights=Path(weights) if weights else None,
            options=dict(row.get("options", {})),
            environment=row.get("conda") or row.get("container") or "",
        )


@dataclass(frozen=True)
class Facts:
    """What is known of a model before it runs.

    Attributes:
        network: whether it is a neural network.
        citation: what to cite.
        origin: where its weights come from.
        series: whether it looks at other dates than the target's; None where that is not known.
        here: whether the packages that it imports are installed where this process runs.
    """

    network: bool
    citation: str
    origin: Origin
    series: bool | None = None
    here: bool = True


class Model(ABC):
    """One way to remove clouds, of whatever kind.

    Class attributes:
        kind: key in the registry.
        citation: one line with authors, year, title, DOI.
        options_type: frozen dataclass of its options, with their defaults.
        network: True for neural networks (they get the GPU resource).
        receptive_field: pixels of context on each side that ``predict`` looks at; None
            means the whole scene must be one window, or a patch of ``patch_px``.
        patch_px: edge of the only window size the model is defined on; larger scenes are
            cut in overlapping patches that are blended. None where any size will do.
        radar_dates: the radar dates that it wants (``target``, ``paired`` or ``all``).
        sees_veil: whether it is given the excess over the ground and the distances from cloud
            (``target_veil``, ``context_veil``, ``target_distance``, ``context_distance``).
        precisions: what it can compute in with its usual library.
        openvino_precisions: what it can compute in with OpenVINO; empty if it cannot.

    Attributes:
        options: of its row, an ``options_type``.
        backend: library that computes; of a network with TensorFlow the engine sets it and
            ``precision`` before ``load``, to ``tensorflow`` or ``openvino``. Any other name, as
            ``torch``, is left alone: the model finds one GPU, or none, and uses it itself.
        precision: what it computes in; ``prepare`` may change it for a scene.
        precision_note: why that is not what was asked for, or what is known of its cost.
        notes: what is to be said of its answer for a scene, such as a fallback; ``prepare`` and
            ``predict`` may set it, the engine empties it before and records it with the answer.
        bytes_per_px: most memory that one pixel of a window costs while it is computed, known
            after ``load``; None where nobody measured it.
    """

    kind: ClassVar[str]
    citation: ClassVar[str]
    options_type: ClassVar[type] = NoOptions
    network: ClassVar[bool] = False
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    openvino_precisions: ClassVar[tuple[str, ...]] = ()
    backend: str = "numpy"
    precision: str = "float32"
    precision_note: str = ""
    notes: tuple[str, ...] = ()
    bytes_per_px: int | None = None
    radar_dates: RadarDates = "target"
    sees_veil: bool = False
    receptive_field: int | None = 0
    patch_px: int | None = None
    origin: Origin = "none"
    weights_checksum: str = ""

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.options: Any = self.read_options(spec)

    def read_options(self, spec: ModelSpec) -> Any:
        """Return the options of its row of the models table, names and types checked.

        Raises:
            InputError: naming the model, the option, what was found and what is allowed.
        """
        return parse_options(self.options_type, spec)

    @property
    def facts(self) -> Facts:
        """What is known of it before it runs."""
        series = None if self.origin == "external" else self.needs.max_context != 0
        return Facts(self.network, self.citation, self.origin, series)

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What this model requires of a scene."""

    def skip(self, scene: Scene) -> str | None:
        """Return why this model cannot run on ``scene``, or None when it can."""
        if self.network and (self.spec.weights is None or not self.spec.weights.is_file()):
            return NOT_FETCHED
        return unmet_need(self.needs, scene)

    @property
    def weights(self) -> Path:
        """The weights file that its row of the models table names.

        Raises:
            InputError: if it names none.
        """
        if self.spec.weights is None:
            raise InputError(f"model '{self.spec.id}': {NOT_FETCHED}", field="weights")
        return self.spec.weights

    def files_beside(self, scene: Scene) -> tuple[Path, ...]:
        """Return what it reads for a scene beside the scene itself and its weights."""
        return ()

    def load(self) -> None:  # noqa: B027 - optional hook
        """Load weights, once per process. The default has none."""

    def prepare(self, scene: Scene, tiles: Sequence[Inputs]) -> None:  # noqa: B027
        """Gather statistics of a scene before predicting.

        ``tiles`` are its windows without overlap, each read when it is asked for.
        """

    @abstractmethod
    def predict(self, inputs: Inputs) -> Prediction:
        """Remove the clouds of one window; deterministic."""


def unmet_need(needs: Needs, scene: Scene) -> str | None:
    """Return the first requirement that a scene does not meet, or None."""
    missing = [name for name in needs.bands if name not in scene.bands]
    if missing:
        return f"needs bands {', '.join(missing)}, which the scene does not have"
    if needs.target and NO_ACQUISITION in scene.target.facts:
        return f"needs an image of {scene.target.date}: {scene.target.facts[NO_ACQUISITION]}"
    if needs.radar == "required" and scene.radar is None:
        return "needs Sentinel-1 radar, which the scene does not have"
    if len(scene.context) < needs.min_context:
        frames = "frame" if needs.min_context == 1 else "frames"
        return f"needs {needs.min_context} context {frames}, the scene has {len(scene.context)}"
    if needs.levels and scene.level not in needs.levels:
        return f"needs level {' or '.join(needs.levels)}, the scene is {scene.level or 'unknown'}"
    return None
