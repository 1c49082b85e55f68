"""One training run from its section of the config: images in, weights and card out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from unveil.errors import InputError
from unveil.models.chronos import CALIBRATION
from unveil.models.chronos_network import network_arrays as chronos_arrays
from unveil.models.dsen2cr import build_network, network_arrays
from unveil.training.card import place_of_image, rounded, write_card, write_weights
from unveil.training.datasets import (
    Block,
    image_bbox,
    load_image,
    read_core_image,
    validation_batches,
)
from unveil.training.loop import TrainingPlan, train
from unveil.training.series import SampleOptions, Series, load_series
from unveil.training.series_task import SeriesTask
from unveil.training.single_image import (
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


def train_dsen2cr(
    run: Mapping[str, Any],
    *,
    sources: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Path],
    weights: Path,
    command: str,
) -> None:
    """Train a network of the DSen2-CR architecture without radar and write it with its card.

    The checkpoint lies beside the weights, is resumed from, and goes when the card is written.

    Args:
        run: title, network (bands, features, blocks), plan and limits, as in the config.
        sources: facts of the images by id, as in the config.
        paths: the images by id.
        weights: the ``.npz`` to write; its card gets the suffix ``.json``.
        command: what repeats the run, for the card.

    Raises:
        InputError: if an image is missing, damaged or unfit.
    """
    network, folder = run["network"], weights.parent
    images = [
        load_image(
            path,
            name=name,
            bands=network["bands"],
            holdout=Block(**sources[name]["holdout"]),
            buffer=sources[name]["buffer"],
        )
        for name, path in paths.items()
    ]
    plan = TrainingPlan(**run["plan"])
    build = functools.partial(
        build_network,
        bands=len(network["bands"]),
        radar=False,
        features=network["features"],
        blocks=network["blocks"],
    )
    trained, progress = train(SingleImageTask(build, images), plan, folder=folder)
    held_out = validation_batches(images, size=plan.validation_crop, seed=plan.seed)
    predictors = {
        "network": network_predictor(trained),
        "cloudy_input": cloudy_predictor,
        "clear_mean_of_sample": clear_mean_predictor,
    }
    validation = {name: evaluate(predict, held_out) for name, predict in predictors.items()}
    for name, scores in validation.items():
        logger.info("%s: %s", name, {c: round(s["mae_occluded"], 4) for c, s in scores.items()})
    write_weights(weights, network_arrays(trained))
    write_card(
        weights.with_suffix(".json"),
        weights=weights,
        run=run,
        architecture={"name": "DSen2-CR", "radar": False, **network},
        places=[place_of_image(image, sources[image.id]) for image in images],
        plan=plan,
        how={
            "loss": "cloud-adaptive regularised L1 of DSen2-CR, lambda 1",
            "clouds": "simulated (unveil.clouds)",
        },
        progress=progress,
        validation={
            "what": "mean absolute error in reflectance on the held-out blocks, simulated clouds",
            "scores": {
                name: {f"{cover:g}": rounded(scores) for cover, scores in by_cover.items()}
                for name, by_cover in validation.items()
            },
        },
        command=command,
    )
    (folder / "checkpoint.npz").unlink(missing_ok=True)


def train_chronos(
    run: Mapping[str, Any],
    *,
    sources: Mapping[str, Mapping[str, Any]],
    paths: Mapping[str, Path],
    weights: Path,
    command: str,
) -> None:
    """Train the time-series network and write it with its card.

    Args:
        run: title, network (size), series, held_out, images, samples, plan and limits.
        sources: facts of series and images by id.
        paths: their files by id.
        weights: the ``.npz`` to write; its card gets the suffix ``.json``.
        command: what repeats the run, for the card.

    Raises:
        InputError: if a file is missing, damaged or unfit, or a place is on both sides.
    """
    series = [load_series(paths[n], name=n, weight=w) for n, w in run["series"].items()]
    held_out = [load_series(paths[name], name=name) for name in run["held_out"]]
    refuse_shared_places(series, held_out, images={n: image_bbox(paths[n]) for n in run["images"]})
    samples = dict(run["samples"])
    plan = TrainingPlan(**run["plan"])
    task = SeriesTask(
        run["network"]["size"],
        series=series,
        images=[read_core_image(paths[name]) for name in run["images"]],
        held_out=held_out,
        pool=samples.pop("pool"),
        fresh=samples.pop("fresh"),
        options=SampleOptions(**samples),
    )
    folder = weights.parent
    network, progress = train(task, plan, folder=folder)
    scores = task.scorer(plan)(network)
    logger.info("held-out places: %s", rounded(scores))
    arrays = chronos_arrays(network) | {CALIBRATION: np.float32(scores["std_factor"])}
    write_weights(weights, arrays)
    write_card(
        weights.with_suffix(".json"),
        weights=weights,
        run=run,
        architecture={"name": "chronos", "parameters": network.count_params(), **run["network"]},
        places=[_place_of_series(s, sources, "trained on") for s in series]
        + [_place_of_series(s, sources, "validated on") for s in held_out]
        + [
            {"id": name, "role": "trained on", "bbox": image_bbox(paths[name])}
            | {k: v for k, v in sources[name].items() if k in ("package", "licence", "level")}
            for name in run["images"]
        ],
        plan=plan,
        how={
            "loss": "Laplace negative log-likelihood and absolute error",
            "clouds": "real masks and simulated clouds on real series",
            "samples": dict(run["samples"]),
        },
        progress=progress,
        validation={
            "what": "mean over scenes of the mean absolute error in reflectance on hidden pixels "
            "of places that were not trained on; mae_first is the closed form alone",
            "scores": rounded(scores),
        },
        command=command,
    )
    (folder / "checkpoint.npz").unlink(missing_ok=True)


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


def _place_of_series(
    series: Series, sources: Mapping[str, Mapping[str, Any]], role: str
) -> dict[str, Any]:
    facts = {key: sources[series.id][key] for key in ("licence",) if key in sources[series.id]}
    bbox = [round(value, 5) for value in series.bbox]
    radar = {"radar": "Sentinel-1 VV, VH"} if len(series.radar) else {}
    return {"id": series.id, "role": role, "bbox": bbox, "level": series.level, **radar, **facts}
