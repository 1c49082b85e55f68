"""Each paper's own metrics, quirks included, to compare with its published figures.

Never used to rank models here: for that see :mod:`unveil.metrics.definitions`. Images are
``(B, H, W)``, stacks of them ``(N, B, H, W)``, masks ``(N, H, W)``; reflectance 0...1 unless
said otherwise. Computed in float64 where the originals use float32, hence agreement to
about 1e-5. Masks are 1 under cloud or shadow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import correlate1d

from unveil.metrics import definitions
from unveil.metrics.registry import IN_PAPERS


@dataclass(frozen=True)
class PublishedFigure:
    """What a paper reports of a model on a data set, to print beside our own numbers.

    Attributes:
        model: the model as the source names it.
        dataset: the test split.
        definition: whose evaluator gave the numbers, a key of :data:`DEFINITIONS`.
        source: where the numbers stand.
        second_hand: True when the source quotes or reprocesses somebody else's model.
        mae: mean absolute error, reflectance.
        rmse: root mean squared error, reflectance; None when not given.
        psnr: dB.
        ssim: structural similarity.
        sam: spectral angle, degrees.
    """

    model: str
    dataset: str
    definition: str
    source: str
    second_hand: bool
    mae: float
    rmse: float | None
    psnr: float
    ssim: float
    sam: float


_MERANER = "Meraner et al. 2020, doi:10.1016/j.isprsjprs.2020.05.013"
_EBEL = "Ebel et al. 2023, arXiv:2304.05464"
_ORIGINAL = ("SEN12MS-CR", "DSen2-CR")
_REPROCESSED = ("SEN12MS-CR, reprocessed", "UnCRtainTS")

FIGURES: tuple[PublishedFigure, ...] = (
    PublishedFigure(
        "DSen2-CR (CARL)", *_ORIGINAL, _MERANER, False, 0.0290, 0.0366, 28.7, 0.875, 8.15
    ),
    PublishedFigure(
        "DSen2-CR (L1)", *_ORIGINAL, _MERANER, False, 0.0270, 0.0343, 29.3, 0.878, 8.07
    ),
    PublishedFigure(
        "DSen2-CR (CARL), no SAR", *_ORIGINAL, _MERANER, False, 0.0306, 0.0387, 27.6, 0.870, 8.98
    ),
    PublishedFigure(
        "DSen2-CR (L1), no SAR", *_ORIGINAL, _MERANER, False, 0.0284, 0.0361, 28.8, 0.873, 8.97
    ),
    PublishedFigure("DSen2-CR", *_REPROCESSED, _EBEL, True, 0.0313, None, 27.76, 0.874, 9.472),
    PublishedFigure("UnCRtainTS", *_REPROCESSED, _EBEL, True, 0.0272, None, 28.90, 0.880, 8.32),
)
"""Figures of the papers. Both reprocessed rows are as commonly quoted, not from the authors."""

DEFINITIONS: dict[str, str] = {
    "DSen2-CR": "every pixel counts, clear and cloudy, clouds of the truth too; DN are clipped to "
    "10 000, the peak of PSNR; SSIM leaves out a border of 5 pixels",
    "UnCRtainTS": "every pixel counts; SSIM continues the image with zeros and averages over "
    "that border as well",
    "SEN12MS-CR-TS": "as UnCRtainTS for these five measures; its further errors count a pixel as "
    "cloudy when any input date is",
    "U-TILISE": "pixels that are clear in the truth; SSIM over every pixel, with a window of 5 "
    "pixels, zeros beyond the image and negative values set to 0; here a series of one date",
    "AllClear": "pixels that are clear in the truth; SSIM counts blanked pixels as alike; the "
    "angle is taken between columns of the image, not between spectra",
}
"""The papers' definitions, with what is peculiar to each."""

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


def by_every_paper(
    prediction: np.ndarray,
    target: np.ndarray,
    cloudy: np.ndarray,
    masks: np.ndarray,
    known: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Score one patch by each of :data:`DEFINITIONS`, in the units of the registry.

    Args:
        prediction: ``(B, H, W)`` reflectance.
        target: the cloud-free image, likewise.
        cloudy: the cloudy input, likewise.
        masks: ``(N, H, W)`` bool, cloud or shadow of the N input dates, the target's first.
        known: ``(H, W)`` bool, the cloud-free image is clear.

    Returns:
        Definition -> metric of :data:`unveil.metrics.registry.IN_PAPERS` -> value; NaN where a
        definition has no pixels.
    """
    to_dn = 10_000 / DSEN2CR_SCALE
    clear, seen = (np.clip(x, 0, 1)[None] * to_dn for x in (target, cloudy))
    of_dsen2cr = dsen2cr((prediction * to_dn)[None], clear, seen, masks[:1])
    ts = sen12mscrts(prediction, target, masks)
    ts["SAM"] = float(np.degrees(ts["SAM"]))
    series = utilise(
        prediction[None], target[None], input_masks=masks[:1], target_masks=~known[None]
    )
    return {
        "DSen2-CR": {
            "MAE": of_dsen2cr["cloud_mean_absolute_error"] / to_dn,
            "RMSE": of_dsen2cr["cloud_root_mean_squared_error"] / to_dn,
            "PSNR": of_dsen2cr["cloud_psnr"],
            "SSIM": of_dsen2cr["cloud_ssim"],
            "SAM": float(np.degrees(of_dsen2cr["cloud_mean_sam"])),
        },
        "UnCRtainTS": {name: ts[name] for name in IN_PAPERS},
        "SEN12MS-CR-TS": {name: ts[name] for name in IN_PAPERS},
        "U-TILISE": {
            "MAE": series["masked_mae"],
            "RMSE": series["masked_rmse"],
            "PSNR": series["masked_psnr"],
            "SSIM": series["ssim"],
            "SAM": float(np.degrees(series["masked_sam"])),
        },
        "AllClear": {
            name: float(values[0])
            for name, values in allclear(prediction[None], target[None], known[None]).items()
        },
    }


def uncrtaints(
    prediction: np.ndarray, target: np.ndarray, variance: np.ndarray | None = None
) -> dict[str, float]:
    """UnCRtainTS's metrics of one image (Ebel et al. 2023).

    Quirks: every pixel counts, clouds in the target too; SSIM pads the image with zeros and
    takes the mean over the padded border as well; the signed error is target - prediction.

    Args:
        prediction: ``(B, H, W)``.
        target: ``(B, H, W)``.
        variance: ``(B, H, W)`` predicted variance, reflectance squared; adds four means.
    """
    error = definitions.difference(target, prediction)
    found = _errors(error) | {
        "SAM": definitions.sam(prediction, target),
        "SSIM": float(_ssim_zero_padded(prediction, target, 11).mean()),
    }
    if variance is not None:
        found["error"] = float(error.mean())
        found["mean ae"] = float(np.abs(error).mean())
        found["mean se"] = float((error**2).mean())
        found["mean var"] = float(np.mean(variance, dtype=np.float64))
    return found


def sen12mscrts(prediction: np.ndarray, target: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """SEN12MS-CR-TS's metrics of one image (Ebel et al. 2022, doi:10.1109/TGRS.2022.3146246).

    Quirks: as UnCRtainTS's, but the spectral angle is in radians; "cloudy" pixels are those
    covered in *any* of the input dates, "cloudfree" the ones covered in none.

    Args:
        prediction: ``(B, H, W)``.
        target: ``(B, H, W)``.
        masks: ``(N, H, W)`` masks of the N input dates.

    Returns:
        NaN for the cloudy or cloudfree errors when there are no such pixels.
    """
    found = uncrtaints(prediction, target)
    found["SAM"] = float(np.radians(found["SAM"]))
    error = definitions.difference(prediction, target)
    covered = np.asarray(masks, bool).any(axis=0)
    for name, chosen in (("cloudy", covered), ("cloudfree", ~covered)):
        part = _errors(error[:, chosen])
        found |= {f"RMSE_{name}": part["RMSE"], f"MAE_{name}": part["MAE"]}
    return found


def allclear(
    predictions: np.ndarray, targets: np.ndarray, valid: np.ndarray
) -> dict[str, np.ndarray]:
    """AllClear's metrics of each sample (Zhou et al. 2024, arXiv:2410.23891).

    The published number is the mean over samples, those without valid pixels left out
    (``numpy.nanmean``); for land cover classes ``valid`` holds the pixels of one class.

    Quirks: SSIM is computed on images with zeros at invalid pixels, which counts the
    similarity of two blanks, and averaged over valid pixels; the spectral angle is not
    between spectra: it is taken between image *columns* (vectors over the rows of one
    band, invalid pixels included), each weighted by its number of valid pixels. PSNR is
    a mean of decibels.

    Args:
        predictions: ``(N, B, H, W)``.
        targets: ``(N, B, H, W)``.
        valid: ``(N, H, W)`` bool, the target is clear.

    Returns:
        Metric -> ``(N,)`` float64, NaN for samples without valid pixels.
    """
    samples = zip(predictions, targets, np.asarray(valid, bool), strict=True)
    rows = [_allclear_sample(p, t, ok) for p, t, ok in samples]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _allclear_sample(p: np.ndarray, t: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    if not valid.any():
        return dict.fromkeys(("MAE", "RMSE", "PSNR", "SAM", "SSIM"), float("nan"))
    similarity = _ssim_zero_padded(p * valid, t * valid, 11)
    columns = definitions.sam_map(np.swapaxes(p, 0, 1), np.swapaxes(t, 0, 1))
    weights = np.broadcast_to(valid.sum(axis=0), columns.shape)
    return _errors(definitions.difference(p, t)[:, valid]) | {
        "SAM": float(np.average(columns, weights=weights)),
        "SSIM": float(similarity[:, valid].mean()),
    }


def utilise(
    predictions: np.ndarray,
    targets: np.ndarray,
    *,
    input_masks: np.ndarray,
    target_masks: np.ndarray | None = None,
    frames: np.ndarray | None = None,
) -> dict[str, float]:
    """U-TILISE's metrics of one time series (Stucker et al. 2023, arXiv:2305.13277).

    Quirks: all dates of the series are pooled, the ones that the model was given clear as
    well; SSIM has a window of 5 pixels, pads with zeros, sets negative values to 0 and
    ignores the target's clouds; "occluded" and "observed" SSIM sort whole dates, the
    errors sort pixels. Their program gives the angle in radians or, by option, degrees;
    this is radians.

    Args:
        predictions: ``(T, B, H, W)``.
        targets: ``(T, B, H, W)``.
        input_masks: ``(T, H, W)``, 1 where the model's input was hidden.
        target_masks: ``(T, H, W)``, 1 under clouds of the target: left out of the errors.
            Without, every pixel counts and the names have no prefix.
        frames: ``(T,)`` bool, False for padding.

    Returns:
        The names of the authors' program; NaN where there are no such pixels.
    """
    keep = np.ones(len(targets), bool) if frames is None else np.asarray(frames, bool)
    hidden = np.asarray(input_masks, bool)[keep]
    p, t = np.asarray(predictions)[keep], np.asarray(targets)[keep]
    similarity = [
        np.clip(_ssim_zero_padded(x, y, 5), 0, 1).mean() for x, y in zip(p, t, strict=True)
    ]
    found = {"ssim": _mean_or_nan(np.array(similarity))}
    pixel = (_where(definitions.difference(p, t), np.ones_like(hidden)), _angles(p, t).ravel())
    if target_masks is None:
        return found | _utilise_errors(pixel, np.ones(hidden.size, bool), ("", ""))
    touched = hidden.any(axis=(1, 2))
    clear = ~np.asarray(target_masks, bool)[keep].ravel()
    found |= _utilise_errors(pixel, clear, ("masked_", ""))
    for name, dates, pixels in (
        ("occluded", touched, hidden.ravel()),
        ("observed", ~touched, ~hidden.ravel()),
    ):
        found[f"ssim_images_{name}_input_pixels"] = _mean_or_nan(np.array(similarity)[dates])
        affixes = ("masked_", f"_{name}_input_pixels")
        found |= _utilise_errors(pixel, clear & pixels, affixes)
    return found


def _utilise_errors(
    pixel: tuple[np.ndarray, np.ndarray], chosen: np.ndarray, affixes: tuple[str, str]
) -> dict[str, float]:
    """Errors ``(P, B)`` and angles ``(P,)`` of the chosen pixels, under the names wanted."""
    errors, angles = pixel
    found = _errors(errors[chosen])
    values = {
        "mae": found["MAE"],
        "rmse": found["RMSE"],
        "mse": found["RMSE"] ** 2,
        "psnr": found["PSNR"],
        "sam": _mean_or_nan(angles[chosen]),
    }
    return {f"{affixes[0]}{name}{affixes[1]}": value for name, value in values.items()}


def _errors(error: np.ndarray) -> dict[str, float]:
    """RMSE, MAE and PSNR (peak 1) of errors of any shape; NaN without any."""
    rmse = _mean_or_nan(error**2) ** 0.5
    return {
        "RMSE": rmse,
        "MAE": _mean_or_nan(np.abs(error)),
        "PSNR": definitions.psnr_from_rmse(rmse),
    }


def _ssim_zero_padded(first: np.ndarray, second: np.ndarray, size: int) -> np.ndarray:
    """SSIM with the image continued by zeros, ``(B, H, W)``; Gaussian of sigma 1.5, range 1."""
    offsets = np.arange(size) - size // 2
    window = np.exp(-0.5 * (offsets / definitions.SSIM_SIGMA) ** 2)
    window /= window.sum()

    def mean(image: np.ndarray) -> np.ndarray:
        rows = correlate1d(image, window, axis=-2, mode="constant")
        return correlate1d(rows, window, axis=-1, mode="constant")

    p, t = np.asarray(first, np.float64), np.asarray(second, np.float64)
    return definitions.similarity(*map(mean, (p, t, p * p + t * t, p * t)))


def _mean_or_nan(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")


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
