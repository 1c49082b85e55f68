"""Each paper's own metrics, quirks included, to compare with its published figures.

Never used to rank models here: for that see :mod:`unveil.metrics.definitions`. Images are
``(N, B, H, W)``, masks ``(N, H, W)``; computed in float64 where the originals use float32,
hence agreement to about 1e-5.
"""

from __future__ import annotations

import numpy as np

from unveil.metrics import definitions

DSEN2CR_SCALE = 2000
"""Digital numbers per network unit of DSen2-CR."""
DSEN2CR_PEAK = 10_000 / DSEN2CR_SCALE


def dsen2cr(
    prediction: np.ndarray, target: np.ndarray, cloudy: np.ndarray, mask: np.ndarray
) -> dict[str, float]:
    """DSen2-CR's metrics (Meraner et al. 2020, doi:10.1016/j.isprsjprs.2020.05.013).

    Quirks: errors are in network units, DN / 2000 (multiply by .2 for reflectance), spectral
    angles in radians; "covered" pixels are compared with the target but "clear" ones with
    the *cloudy input*; CARL adds the error over the whole target once more; the bandwise
    RMSE averages roots; an empty mask counts as an error of 0; PSNR and SSIM take 10 000 DN
    as their peak, SSIM leaves out a border of 5 pixels.

    Args:
        prediction: ``(N, B, H, W)`` in DN / 2000.
        target: the cloud-free image, likewise.
        cloudy: the cloudy input, likewise.
        mask: ``(N, H, W)``, 1 under cloud or shadow.

    Returns:
        The twelve metrics under the names that the authors' program gives them.
    """
    p, t, c = (np.asarray(x, np.float64) for x in (prediction, target, cloudy))
    covered = np.asarray(mask, bool)
    error, change = np.abs(p - t), np.abs(p - c)
    per_band = np.sqrt(np.mean((p - t) ** 2, axis=(2, 3)))
    to_target, to_input = _angles(p, t), _angles(p, c)
    square = float(np.mean((p - t) ** 2))
    kept_or_cleared = np.where(covered[:, None], error, change)
    return {
        "carl_error": float(kept_or_cleared.mean() + error.mean()),
        "cloud_mean_absolute_error": float(error.mean()),
        "cloud_mean_squared_error": square,
        "cloud_root_mean_squared_error": square**0.5,
        "cloud_bandwise_root_mean_squared_error": float(per_band.mean()),
        "cloud_mean_sam": float(to_target.mean()),
        "cloud_mean_sam_covered": _mean_or_zero(to_target[covered]),
        "cloud_mean_sam_clear": _mean_or_zero(to_input[~covered]),
        "cloud_mean_absolute_error_clear": _mean_or_zero(_where(change, ~covered)),
        "cloud_mean_absolute_error_covered": _mean_or_zero(_where(error, covered)),
        "cloud_psnr": definitions.psnr_from_rmse(square**0.5 / DSEN2CR_PEAK),
        "cloud_ssim": _ssim(p / DSEN2CR_PEAK, t / DSEN2CR_PEAK),
    }


def _where(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the chosen pixels of ``(N, B, H, W)`` as ``(P, B)``."""
    return np.moveaxis(images, 1, -1)[chosen]


def _mean_or_zero(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0


def _angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spectral angles in radians, ``(N, H, W)``."""
    pairs = zip(first, second, strict=True)
    return np.radians(np.stack([definitions.sam_map(p, t) for p, t in pairs]))


def _ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Mean SSIM without the border over images and bands, data range 1."""
    pairs = zip(first, second, strict=True)
    return float(np.mean([definitions.ssim(p, t) for p, t in pairs]))
