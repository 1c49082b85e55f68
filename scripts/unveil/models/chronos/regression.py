"""Regression of a scene's target from sums of products alone, which add up over tiles.

The sums of a fold are the matrix of products of all features and the target, ``(F + B, F + B)``
float64, summed over its pixels: the constant first, then the faded composite of B bands, further
composites, the frames, radar where there is some, and the target's B bands last. There are two
folds, each judged by what the other says.
"""

from __future__ import annotations

import numpy as np

PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_FEW_LOOKS = 100.0


def line(
    count: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    xx: np.ndarray,
    xy: np.ndarray,
    yy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return gain, offset and RMSE of y = gain x + offset from sums; few pixels, gain 1."""
    n = np.maximum(count, 1)
    trust = count / (count + _FEW_LOOKS)
    mean_x, mean_y = x / n, y / n
    var_x, var_y = xx / n - mean_x**2, yy / n - mean_y**2
    cov = xy / n - mean_x * mean_y
    gain = 1 + trust * (cov / np.maximum(var_x, 1e-7) - 1)
    gain = np.clip(gain, 0.2, 5.0)
    offset = trust * (mean_y - gain * mean_x)
    gain = np.where(count > 0, gain, 1.0)
    square = var_y - 2 * gain * cov + gain**2 * var_x + (mean_y - gain * mean_x - offset) ** 2
    return gain, offset, np.sqrt(np.maximum(square, 0))


def view_lines(
    whole: np.ndarray, frames: int, bands: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the line from each frame to the target, band by band, ``(T, B)`` three times."""
    x = 1 + 6 * bands + np.arange(frames * bands).reshape(frames, bands)
    y = np.broadcast_to(len(whole) - bands + np.arange(bands), x.shape)
    count = np.full(x.shape, whole[0, 0])
    return line(count, whole[0, x], whole[0, y], whole[x, x], whole[x, y], whole[y, y])


def mean_shift(whole: np.ndarray, bands: int) -> np.ndarray:
    """Return the mean of target minus faded composite, ``(B,)``, shrunk when pixels are few."""
    n = whole[0, 0]
    faded, target = whole[0, 1 : 1 + bands], whole[0, -bands:]
    return (target - faded) / (n + _FEW_LOOKS)


def ridge(sums: np.ndarray, use: slice, penalty: float, bands: int) -> np.ndarray:
    """Return ``(F, B)`` coefficients of target = faded + ridge, constant not penalised.

    The slopes are shrunk towards the faded composite, not towards nothing.
    """
    inner = sums[:-bands, :-bands][use, use]
    n = inner[0, 0]
    cross = sums[:-bands, -bands:][use] - inner[:, 1 : 1 + bands]
    mean = inner[0, 1:] / n
    covariance = inner[1:, 1:] / n - np.outer(mean, mean)
    scale = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.where(scale > 1e-6, scale, 1.0)
    gram = covariance / np.outer(scale, scale) + penalty * np.eye(len(mean))
    right = (cross[1:] - np.outer(mean, cross[0])) / n / scale[:, None]
    slopes = np.linalg.solve(gram, right) / scale[:, None]
    solution = np.vstack([cross[0] / n - mean @ slopes, slopes])
    solution[1 : 1 + bands] += np.eye(bands)
    return solution


def cross_validate(sums: np.ndarray, use: slice, penalty: float, bands: int) -> np.ndarray:
    """Return the RMSE ``(B,)`` of each fold's solution on the other fold."""
    square = np.zeros(bands)
    for learn, judge in ((0, 1), (1, 0)):
        w = ridge(sums[learn], use, penalty, bands)
        inner = sums[judge][:-bands, :-bands][use, use]
        cross = sums[judge][:-bands, -bands:][use]
        target = np.diag(sums[judge][-bands:, -bands:])
        square += target - 2 * (w * cross).sum(axis=0) + (w * (inner @ w)).sum(axis=0)
    return np.sqrt(np.maximum(square / sums[:, 0, 0].sum(), 0))


def choose(sums: np.ndarray, use: slice, scale: np.ndarray, bands: int) -> tuple[float, np.ndarray]:
    """Return the penalty with the least cross-validated error, and that error ``(B,)``."""
    tried = [(penalty, cross_validate(sums, use, penalty, bands)) for penalty in PENALTIES]
    return min(tried, key=lambda one: float(np.mean(one[1] / scale)))


def shift_error(sums: np.ndarray, bands: int) -> np.ndarray:
    """Return the RMSE ``(B,)`` of each fold's shift on the other fold."""
    square = np.zeros(bands)
    for learn, judge in ((0, 1), (1, 0)):
        shift = mean_shift(sums[learn], bands)
        n, faded, target = sums[judge][0, 0], sums[judge][0, 1 : 1 + bands], sums[judge][0, -bands:]
        square += _squares(sums[judge], bands) - 2 * shift * (target - faded) + n * shift**2
    return np.sqrt(np.maximum(square / sums[:, 0, 0].sum(), 0))


def faded_error(whole: np.ndarray, bands: int) -> np.ndarray:
    """Return the RMSE ``(B,)`` of the faded composite as it is."""
    return np.sqrt(np.maximum(_squares(whole, bands) / whole[0, 0], 0))


def _squares(sums: np.ndarray, bands: int) -> np.ndarray:
    """Return the summed squares of target minus faded composite, ``(B,)``."""
    faded, target = np.arange(1, 1 + bands), len(sums) - bands + np.arange(bands)
    return sums[faded, faded] - 2 * sums[faded, target] + sums[target, target]
