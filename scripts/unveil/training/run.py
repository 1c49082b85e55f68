"""One training run from its section of the config: images in, weights and card out."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from unveil.models.dsen2cr import build_network, network_arrays
from unveil.training.card import write_card, write_weights
from unveil.training.datasets import Block, load_image, validation_batches
from unveil.training.loop import (
    TrainingPlan,
    clear_mean_predictor,
    cloudy_predictor,
    evaluate,
    network_predictor,
    train,
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
    trained, progress = train(build, images, plan, folder=folder)
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
        images=images,
        sources=sources,
        plan=plan,
        progress=progress,
        validation=validation,
        command=command,
    )
    (folder / "checkpoint.npz").unlink(missing_ok=True)
