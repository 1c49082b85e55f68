"""One training run from its section of the config: images in, weights and card out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from unveil.errors import InputError
from unveil.models.chronos.learning import score_samples
from unveil.models.chronos.model import CALIBRATION
from unveil.models.chronos.network import network_arrays as chronos_arrays
from unveil.models.dsen2cr.network import network_arrays
from unveil.places.series import Series, load_series
from unveil.training.card import rounded, write_card, write_weights
from unveil.training.datasets import image_bbox, read_clear_image, read_core_image
from unveil.training.loop import TrainingPlan, train
from unveil.training.series.options import SampleOptions
from unveil.training.shots import shots_of
from unveil.training.tasks.series import COMPLETE, OVERCAST, SeriesTask
from unveil.training.tasks.single_image import (
    Recipe,
    SingleImageTask,
    clear_mean_predictor,
    cloudy_predictor,
    evaluate,
    network_predictor,
)

logger = logging.getLogger(__name__)


def set_threads(threads: int) -> None:
    """Limit TensorFlow to a number of threads; before anything is computed."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


@dataclass(frozen=True)
class Outcome:
    """What a trained network leaves.

    Attributes:
        arrays: for the weights file, by name.
        architecture: name of the network, for the card beside its sizes.
        how: further facts for the card: loss, clouds.
        validation: ``what`` was measured, and ``scores``.
    """

    arrays: dict[str, np.ndarray]
    architecture: str
    how: dict[str, Any]
    validation: dict[str, Any]


def train_run(
    run: Mapping[str, Any],
    *,
    sources: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Path],
    weights: Path,
    command: str,
) -> None:
    """Train a network and write it with its card.

    The checkpoint lies beside the weights, is resumed from, and goes when the card is written.

    Args:
        run: kind, title, network, series, held_out, images, samples, plan and limits, as in the
            config.
        sources: facts of series and images by id, as in the config.
        paths: their files by id.
        weights: the ``.npz`` to write; its card gets the suffix ``.json``.
        command: what repeats the run, for the card.

    Raises:
        InputError: if a file is missing, damaged or unfit, or a place is on both sides.
    """
    task, plan = make_task(run, paths), TrainingPlan(**run["plan"])
    network, progress = train(task, plan, folder=weights.parent)
    if isinstance(task, SeriesTask):
        outcome = _finish_chronos(network, task, plan)
    else:
        outcome = _finish_dsen2cr(network, task, plan)
    write_weights(weights, outcome.arrays)
    sizes = {"name": outcome.architecture, "parameters": network.count_params(), **run["network"]}
    write_card(
        weights.with_suffix(".json"),
        weights=weights,
        run=run,
        architecture=sizes,
        places=places_of(run, sources, paths),
        plan=plan,
        how=outcome.how | {"samples": dict(run["samples"])},
        progress=progress,
        validation=outcome.validation,
        command=command,
    )
    (weights.parent / "checkpoint.npz").unlink(missing_ok=True)


def make_task(run: Mapping[str, Any], paths: Mapping[str, Path]) -> SeriesTask | SingleImageTask:
    """Return what a run learns.

    Args:
        run: kind, network, series, held_out, images and samples.
        paths: files of series and images by id.

    Raises:
        InputError: if a file is missing, damaged or unfit, or a place is on both sides.
    """
    series = [load_series(paths[n], name=n, weight=w) for n, w in run["series"].items()]
    held_out = [load_series(paths[name], name=name) for name in run["held_out"]]
    refuse_shared_places(series, held_out, images={n: image_bbox(paths[n]) for n in run["images"]})
    samples = dict(run["samples"])
    if run["kind"] == "dsen2cr":
        days = samples.pop("pair_days")
        series += [read_clear_image(paths[n], name=n, weight=1.0) for n in run["images"]]
        return SingleImageTask(
            run["network"],
            shots=[shot for one in series for shot in shots_of(one, pair_days=days)],
            held_out=[shot for one in held_out for shot in shots_of(one, pair_days=days)],
            recipe=Recipe(**samples),
        )
    images = [read_core_image(paths[name]) for name in run["images"]]
    given: dict[str, Any] = {"series": series, "images": images, "held_out": held_out}
    given |= {name: samples.pop(name) for name in ("pool", "fresh") if name in samples}
    given["options"] = SampleOptions(**samples)
    return SeriesTask(run["network"]["size"], **given)


def _finish_dsen2cr(network: keras.Model, task: SingleImageTask, plan: TrainingPlan) -> Outcome:
    batches = task.validation(plan)
    predictors = {
        "network": network_predictor(network),
        "cloudy_input": cloudy_predictor,
        "clear_mean_of_sample": clear_mean_predictor,
    }
    validation = {name: evaluate(predict, batches) for name, predict in predictors.items()}
    for name, scores in validation.items():
        logger.info("%s: %s", name, {p: round(s["mae_occluded"], 4) for p, s in scores.items()})
    radar = {} if task.radar_fill is None else {"radar_fill_db": round(task.radar_fill, 2)}
    return Outcome(
        network_arrays(network),
        "DSen2-CR",
        {
            "loss": "cloud-adaptive regularised L1 of DSen2-CR, lambda 1",
            "clouds": "real clouds of other dates of the place, real cloud shapes of any place, "
            "and simulated clouds; thick and thin",
        }
        | radar,
        {
            "what": "by place that was not trained on, mean over scenes of the mean absolute error "
            "in reflectance on hidden and on clear pixels; the first also by hidden share",
            "scores": {
                name: {place: rounded(scores) for place, scores in by_place.items()}
                for name, by_place in validation.items()
            },
        },
    )


def _finish_chronos(network: keras.Model, task: SeriesTask, plan: TrainingPlan) -> Outcome:
    """Calibrate the network on the held-out places."""
    scores = {
        name: score_samples(network, task.held_out_samples(plan, options))
        for name, options in (("with clear pixels", COMPLETE), ("overcast", OVERCAST))
    }
    logger.info("held-out places: %s", {name: rounded(row) for name, row in scores.items()})
    factors = np.array([row["std_factor"] for row in scores.values()], np.float32)
    return Outcome(
        chronos_arrays(network) | {CALIBRATION: factors},
        "chronos",
        {
            "loss": "Laplace negative log-likelihood, absolute error and spectral angle",
            "clouds": "real masks and simulated clouds on real series",
        },
        {
            "what": "mean over scenes of the mean absolute error in reflectance on hidden pixels "
            "of places that were not trained on; mae_first is the closed form alone",
            "scores": {name: rounded(row) for name, row in scores.items()},
        },
    )


def refuse_shared_places(
    series: Sequence[Series],
    held_out: Sequence[Series],
    *,
    images: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Check that no place is trained and validated on, with a rim of a kilometre.

    Args:
        series: places trained on.
        held_out: places validated on.
        images: west, south, east, north in degrees of images trained on, by id.

    Raises:
        InputError: naming both.
    """
    rim = 0.01  # degrees
    seen = {one.id: one.bbox for one in series} | dict(images or {})
    for name, (west, south, east, north) in seen.items():
        for other in held_out:
            w, s, e, n = other.bbox
            apart = w > east + rim or e < west - rim or s > north + rim or n < south - rim
            if not apart:
                raise InputError(
                    f"{name} and {other.id} are the same place",
                    file="training table",
                    field="held_out",
                    remedy="hold out a place that is not trained on",
                )


def places_of(
    run: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Path],
) -> list[dict[str, Any]]:
    """Return what a card says about all places that a run has seen."""
    roles = dict.fromkeys(run["series"], "trained on")
    roles |= dict.fromkeys(run["held_out"], "validated on")
    places = [
        _place_of_series(load_series(paths[name], name=name), sources, role)
        for name, role in roles.items()
    ]
    listed = {place["id"] for place in places}
    for name in run["images"]:
        facts = {k: v for k, v in sources[name].items() if k in ("package", "licence", "level")}
        if name not in listed:
            places.append(
                {"id": name, "role": "trained on", "bbox": image_bbox(paths[name])} | facts
            )
    return places


def _place_of_series(
    series: Series, sources: Mapping[str, Mapping[str, Any]], role: str
) -> dict[str, Any]:
    facts = {key: sources[series.id][key] for key in ("licence",) if key in sources[series.id]}
    bbox = [round(value, 5) for value in series.bbox]
    radar = {"radar": "Sentinel-1 VV, VH"} if len(series.radar) else {}
    return {"id": series.id, "role": role, "bbox": bbox, "level": series.level, **radar, **facts}
