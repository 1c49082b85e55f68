"""DSen2-CR in int8 on OpenVINO: calibrated on patches of a scene, refused where it costs much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rasterio.windows import Window

from unveil.models.dsen2cr.openvino import Run, compile_network, half_precision, observe
from unveil.models.dsen2cr.recipe import UNITS_PER_REFLECTANCE
from unveil.models.dsen2cr.weights import Layers
from unveil.raster import Grid

PATCH_PX, PATCHES_PER_EDGE, FEWEST_PATCHES = 128, 4, 4
"""Of a scene, to calibrate int8 and to check it."""
MOST_LOSS_DB = 0.1
"""int8 is refused where it may cost more."""
GOOD_PSNR_DB = 30.0
"""Published networks stay below it on SEN12MS-CR; of a worse result, rounding is a smaller part."""


def quantise(
    layers: Layers, *, calibration: Sequence[np.ndarray], held_out: Sequence[np.ndarray]
) -> tuple[Run | None, str]:
    """Return inference in int8, None where it may cost too much, and what is known of its cost.

    Args:
        layers: weights.
        calibration: ``(N, H, W, C)`` batches in network units that set the ranges.
        held_out: batches that tell what int8 costs against float32.
    """
    if min(len(calibration), len(held_out)) < FEWEST_PATCHES:
        return None, (
            f"int8 refused: the scene has no {FEWEST_PATCHES} patches of {PATCH_PX} pixels "
            f"to calibrate on and as many to check"
        )
    run, loss = compile_int8(layers, calibration=calibration, held_out=held_out)
    found = f"may cost {loss:.3f} dB of PSNR, found on {len(held_out)} held-out patches"
    if loss >= MOST_LOSS_DB:
        return None, f"int8 refused: {found}, allowed {MOST_LOSS_DB}"
    return run, f"int8 {found}"


def calibration_windows(grid: Grid) -> tuple[list[Window], list[Window]]:
    """Return windows spread over a scene to calibrate on, and others to check on.

    None where the scene is so small that both would cost more than int8 saves.
    """
    if min(grid.shape) < PATCH_PX * PATCHES_PER_EDGE:
        return [], []
    rows, cols = (
        [i * (length - PATCH_PX) // (PATCHES_PER_EDGE - 1) for i in range(PATCHES_PER_EDGE)]
        for length in grid.shape
    )
    sides: tuple[list[Window], list[Window]] = ([], [])
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            sides[(i + j) % 2].append(Window(col, row, PATCH_PX, PATCH_PX))
    return sides


def compile_int8(
    layers: Layers, *, calibration: Sequence[np.ndarray], held_out: Sequence[np.ndarray]
) -> tuple[Run, float]:
    """Return inference in int8 and the most dB of PSNR that it may cost.

    Args:
        layers: weights.
        calibration: ``(N, H, W, C)`` batches in network units that set the ranges.
        held_out: batches that tell what int8 costs against float32.
    """
    seen = observe(layers, calibration)
    run = compile_network(layers, precision=half_precision(), activations=seen)
    full = compile_network(layers, precision="float32")
    scale = np.float32(1 / UNITS_PER_REFLECTANCE)
    bands = layers[-1][0].shape[3]
    sides = [
        np.concatenate([(compute(patch) * scale).reshape(-1, bands) for patch in held_out])
        for compute in (full, run)
    ]
    return run, most_loss_db(*sides)


def most_loss_db(full: np.ndarray, rounded: np.ndarray, *, psnr_db: float = GOOD_PSNR_DB) -> float:
    r"""Return the most PSNR that rounding may cost a result, without knowing the truth.

    .. math:: 10 \log_{10} (1 + 2 s / E + D^2 / E^2)

    E is the RMSE of a result of ``psnr_db``, D the RMSE between the two results, and s the
    part of D that is the same at every pixel (root of the mean over bands of its square).
    s may point the way of the error everywhere (Cauchy-Schwarz: the squared error grows by
    at most 2 s E); what varies from pixel to pixel is taken as independent of the error.

    Args:
        full: ``(..., B)`` reflectance computed in float32.
        rounded: the same computed in lower precision.
        psnr_db: PSNR of ``full``.
    """
    difference = (rounded - full).astype(np.float64)
    error = 10 ** (-psnr_db / 20)
    shift = np.sqrt(np.mean(difference.reshape(-1, full.shape[-1]).mean(axis=0) ** 2))
    return float(10 * np.log10(1 + 2 * shift / error + np.mean(difference**2) / error**2))
