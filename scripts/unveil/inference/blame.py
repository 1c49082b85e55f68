"""What the code of a model does wrong is said of that model and that scene.

Models come from papers, from other repositories and from users: an exception in one is no fault of
the workflow, and other models go on.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unveil.errors import InputError, ModelError, SceneSkipped
from unveil.models.base import Model, Prediction
from unveil.scene import Inputs, Scene


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the host or on a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return isinstance(error, RuntimeError) and "Failed to allocate" in str(error)  # OpenVINO


@contextlib.contextmanager
def blaming(model: Model, scene: Scene | None = None) -> Iterator[None]:
    """Turn what the code of a model raises into one line that names the model and the scene.

    Args:
        model: whose code the block runs.
        scene: what it is given, if anything.

    Raises:
        ModelError: for every error but bad input, facts about the scene, want of memory, and
            errors of the disk, which keep their own words.
    """
    try:
        yield
    except (InputError, SceneSkipped, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
        raise _fault(model, scene, f"{type(error).__name__}: {error} ({where})") from error


def require_prediction(prediction: Prediction, inputs: Inputs, model: Model, scene: Scene) -> None:
    """Refuse what a model returned if it cannot be a prediction of these inputs.

    Raises:
        ModelError: naming the model, the scene, what was found and what is wanted.
    """
    if not isinstance(prediction, Prediction):
        found = type(prediction).__name__
        raise _fault(model, scene, f"predict returned {found} instead of a Prediction")
    bands = prediction.bands or scene.bands
    wanted = (len(bands), *inputs.shape)
    for part in ("reflectance", "std"):
        values = getattr(prediction, part)
        if values is None and part == "std":
            continue
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
            raise _fault(model, scene, f"{part} is {_kind_of(values)} instead of numbers")
        if values.shape != wanted:
            raise _fault(
                model,
                scene,
                f"{part} has the shape {values.shape} instead of {wanted} ({', '.join(bands)})",
            )


def _kind_of(values: object) -> str:
    if isinstance(values, np.ndarray):
        return f"an array of {values.dtype}"
    return type(values).__name__


def _fault(model: Model, scene: Scene | None, what: str) -> ModelError:
    place = f" on scene {scene.id}" if scene else ""
    return ModelError(
        f"model {model.spec.id!r} (kind {model.spec.kind}) failed{place}: {what}",
        remedy="this is the model's own code; the log of the job has the whole trace: correct it, "
        "or take the model out of run_models",
    )
