"""How far the content of one image lies off another's, to hundredths of a pixel.

Images are band-passed over their clear pixels, so that season and illumination matter less.
A masked normalised cross-correlation at half resolution (Padfield 2012, IEEE Transactions on
Image Processing 21:2706-2718), summed over blocks and bands, finds the shift to about half a
pixel. From there steps of least squares on the brightness gradient (Lucas and Kanade 1981,
IJCAI) are taken in small windows, each band with the gain and the noise that it has there; the
windows' steps are merged to one by how much texture they stand on and how far they agree.

Arrays are ``(N, B, H, W)``: N blocks of one size, which together stand for a scene. A shift is
that of the *content*, ``(dy, dx)`` in pixels: ``(1, 0)`` means it lies one row too far south.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft, ndimage

MIN_CLEAR_PX = 300
"""Fewest pixels, clear in both images and away from clouds, that a shift is read from."""
MIN_TEXTURE = 1e-4
"""Smallest standard deviation of a band-passed image, in reflectance (one DN)."""
MIN_WINDOWS = 4
"""Fewest windows whose agreement means anything."""
WINDOW_PX = 16

_FINE_PX, _COARSE_PX = 0.5, 2.0  # band pass: difference of two Gaussians
_NEAR, _FAR = 0.4, 0.8  # share of clear pixels around one that has no and full weight
_MOST_REACH_PX = 16  # of the correlation
_TAPS = 4  # of the interpolation, on each side
_ITERATIONS = 6
_SETTLED_PX = 0.01
_LONGEST_STEP_PX = 1.5  # of a window
_LONGEST_WAY_PX = 3.0  # from the peak
_AGREEMENT_PX = 0.5
_ERROR_PX = 0.1  # standard error that halves the reliability
_MIN_SHARE = 0.15  # of a window's pixels that are of use


@dataclass(frozen=True)
class ShiftEstimate:
    """A measured shift.

    Attributes:
        shift: ``(dy, dx)`` in pixels of the content, south and east; None if not measured.
        reliability: 0...1, the share of texture in windows that agree to half a pixel, over
            ``1 + (error_px / 0.1)**2``.
        note: why there is no shift, if so.
        windows: windows that agree with the shift to half a pixel.
        similarity: correlation of the band-passed clear pixels before and after the shift.
        error_px: standard error of the shift, by how far windows differ.
    """

    shift: tuple[float, float] | None
    reliability: float = 0.0
    note: str = ""
    windows: int = 0
    similarity: tuple[float, float] | None = None
    error_px: float | None = None


@dataclass(frozen=True)
class View:
    """What a shift is read from.

    Attributes:
        passed: ``(N, B, H, W)`` float32 band-passed reflectance.
        weight: ``(N, H, W)`` float32 0...1, how far a pixel is trusted.
    """

    passed: np.ndarray
    weight: np.ndarray

    @cached_property
    def windows(self) -> np.ndarray:
        """Band-passed values and their gradients by window, ``(B, K, 3, P)``."""
        rows, cols = (np.gradient(self.passed, axis=axis) for axis in (-2, -1))
        parts = np.stack([self.passed, rows, cols], axis=2)
        count, bands = parts.shape[:2]
        split = _by_window(parts.reshape(-1, *parts.shape[-2:]))
        split = split.reshape(count, bands, 3, -1, split.shape[1]).transpose(1, 0, 3, 2, 4)
        return np.ascontiguousarray(split).reshape(bands, -1, 3, split.shape[-1])

    @cached_property
    def spectra(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Spectra at half resolution of weight, weighted values and weighted squares."""
        weight = _halved(self.weight)[:, None]
        values = _halved(self.passed)
        shape = [fft.next_fast_len(size + _MOST_REACH_PX, real=True) for size in weight.shape[-2:]]
        return tuple(
            fft.rfft2(part, shape) for part in (weight, weight * values, weight * values**2)
        )


def view_of(image: np.ndarray, clear: np.ndarray) -> View:
    """Return what shifts are read from.

    Args:
        image: ``(N, B, H, W)`` float reflectance; values outside the mask are ignored.
        clear: ``(N, H, W)`` bool, pixels that show the surface.
    """
    mask = clear.astype(np.float32)
    near, around = _mean(mask, _FINE_PX), _mean(mask, _COARSE_PX)
    known = np.where(clear[:, None], image, 0).astype(np.float32)
    passed = _divided(_mean(known, _FINE_PX), near[:, None])
    passed -= _divided(_mean(known, _COARSE_PX), around[:, None])
    return View(passed * mask[:, None], weight_of(clear, around))


def weight_of(clear: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Return how far pixels are trusted, ``(N, H, W)`` float32 0...1.

    Clear pixels near to cloud are veiled, and their neighbourhood is known in part: they count
    less, by the share of clear pixels around them. What else is known of a veil belongs here.

    Args:
        clear: ``(N, H, W)`` bool.
        around: ``(N, H, W)`` share of clear pixels around each.
    """
    return np.clip((around - _NEAR) / (_FAR - _NEAR), 0, 1) * clear


def estimate_shift(reference: View, moving: View, *, reach_px: float = 8.0) -> ShiftEstimate:
    """Estimate the shift of the content of ``moving`` relative to ``reference``.

    Args:
        reference: what is measured against.
        moving: what is measured.
        reach_px: how far to search along each axis, at most 16.
    """
    both = reference.weight * moving.weight
    clear = int(both.sum())
    if clear < MIN_CLEAR_PX:
        return ShiftEstimate(None, note=f"{clear} pixels are clear in both, {MIN_CLEAR_PX} needed")
    if min(_texture(view.passed, both) for view in (reference, moving)) < MIN_TEXTURE:
        return ShiftEstimate(None, note="image without texture")
    peak = find_peak(reference, moving, reach_px)
    shift, fits = peak, fit_windows(reference, moving, peak)
    for _ in range(_ITERATIONS):
        if len(fits.step) < MIN_WINDOWS:
            return ShiftEstimate(None, note=f"{len(fits.step)} windows, {MIN_WINDOWS} needed")
        step, error = agree(fits)
        if np.abs(step).max() < _SETTLED_PX:
            break
        shift = shift + np.clip(step, -1, 1)
        if np.abs(shift - peak).max() > _LONGEST_WAY_PX:
            return ShiftEstimate(None, note="the estimate did not settle")
        fits = fit_windows(reference, moving, shift)
    near = np.hypot(*(fits.step - step).T) <= _AGREEMENT_PX
    trust = np.trace(fits.information, axis1=1, axis2=2)
    return ShiftEstimate(
        (float(shift[0]), float(shift[1])),
        float(trust[near].sum() / trust.sum()) / (1 + (error / _ERROR_PX) ** 2),
        windows=int(near.sum()),
        similarity=(fit_windows(reference, moving, np.zeros(2)).similarity, fits.similarity),
        error_px=error,
    )


def find_peak(reference: View, moving: View, reach_px: float) -> np.ndarray:
    """Return where the normalised cross-correlation peaks, ``(dy, dx)`` in pixels."""
    weight, value, square = reference.spectra
    other_weight, other_value, other_square = moving.spectra
    shape = [
        fft.next_fast_len(size // 2 + _MOST_REACH_PX, real=True) for size in moving.weight.shape[1:]
    ]

    def correlate(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return fft.irfft2((np.conj(first) * second).sum(axis=0), shape)

    energy = correlate(square, other_weight) * correlate(weight, other_square)
    score = _divided(correlate(value, other_value), np.sqrt(np.maximum(energy, 0))).sum(axis=0)
    reach = int(np.ceil(min(reach_px, _MOST_REACH_PX) / 2))
    places = np.arange(-reach, reach + 1)
    score = score[np.ix_(places, places)]
    row, col = divmod(int(np.argmax(score)), score.shape[1])
    peak = [row + _vertex(score[:, col], row), col + _vertex(score[row], col)]
    return 2 * (np.array(peak) - reach)


@dataclass(frozen=True)
class WindowFits:
    """Steps that windows would take.

    Attributes:
        step: ``(K, 2)`` dy, dx in pixels.
        information: ``(K, 2, 2)``, how well each is known, up to a common factor.
        similarity: correlation over all windows, mean over the bands.
    """

    step: np.ndarray
    information: np.ndarray
    similarity: float


def fit_windows(reference: View, moving: View, shift: np.ndarray) -> WindowFits:
    """Return what each window would add to a shift, to first order.

    In each window and band the moved image is the reference times a gain, less what the step
    moves, and noise; bands count by gain squared over noise.
    """
    weight = _by_window(reference.weight * moved_weight(moving.weight, shift))
    used = weight.mean(axis=1) >= _MIN_SHARE
    weight, moved = weight[used], moved_image(moving.passed, shift)
    information, pull = np.zeros((len(weight), 2, 2)), np.zeros((len(weight), 2))
    similarity = []
    for band, parts in enumerate(reference.windows):
        products = _products(parts[used], _by_window(moved[:, band])[used], weight)
        known, drawn, correlation = _fit_band(*products, pixels=weight.sum(axis=1))
        information += known
        pull += drawn
        similarity.append(correlation)
    trace = np.trace(information, axis1=1, axis2=2)
    solid = trace > 1e-9
    information, pull, trace = information[solid], pull[solid], trace[solid]
    steady = information + 1e-3 * trace[:, None, None] * np.eye(2)  # an edge alone leaves a way
    step = -np.linalg.solve(steady, pull[..., None])[..., 0]
    step = np.clip(step, -_LONGEST_STEP_PX, _LONGEST_STEP_PX)
    return WindowFits(step, information, float(np.mean(similarity)))


def _products(
    parts: np.ndarray, image: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weighted products by window.

    Those of reference and gradients ``(K, 3, 3)``, of these with the image ``(K, 3)``, and of the
    image with itself ``(K,)``.
    """
    weighted = parts * weight[:, None]
    gram = weighted @ parts.transpose(0, 2, 1)
    cross = (weighted @ image[..., None])[..., 0]
    power = np.einsum("kp,kp,kp->k", weight, image, image)
    return gram.astype(float), cross.astype(float), power.astype(float)


def _fit_band(
    gram: np.ndarray, cross: np.ndarray, power: np.ndarray, *, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the normal equations of a band by window, and its correlation over all."""
    gain = _divided(cross[:, 0], gram[:, 0, 0])
    noise = np.maximum(power - gain * cross[:, 0], 1e-6 * power + 1e-12) / pixels
    known = (gain**2 / noise)[:, None, None] * gram[:, 1:, 1:]
    drawn = (gain / noise)[:, None] * (cross[:, 1:] - gain[:, None] * gram[:, 0, 1:])
    norm = np.sqrt(gram[:, 0, 0].sum() * power.sum())
    return known, drawn, float(cross[:, 0].sum() / max(norm, 1e-12))


def agree(fits: WindowFits) -> tuple[np.ndarray, float]:
    """Merge the windows' steps to one; return it and its standard error in pixels.

    Weighted by information, none with more than twice the usual one; those far from the others
    count less (Geman and McClure 1987). The error comes from how far they differ (the sandwich).
    """
    trust = np.trace(fits.information, axis1=1, axis2=2)
    capped = np.minimum(1, 2 * np.median(trust) / trust)
    information = fits.information * capped[:, None, None]
    step = np.array([_weighted_median(values, trust * capped) for values in fits.step.T])
    for _ in range(10):
        off = fits.step - step
        distance = np.einsum("ki,kij,kj->k", off, information, off)
        scale = max(float(np.median(distance)) / 1.386, 1e-12)  # chi-square of two
        weight = 1 / (1 + distance / (4 * scale)) ** 2
        known = np.einsum("k,kij->ij", weight, information)
        step = np.linalg.solve(known, np.einsum("k,kij,kj->i", weight, information, fits.step))
    drawn = np.einsum("k,kij,kj->ki", weight, information, fits.step - step)
    spread = np.linalg.solve(known, np.linalg.solve(known, drawn.T @ drawn).T)
    count = len(trust)
    return step, float(np.sqrt(np.trace(spread) * count / (count - 2)))


def moved_image(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return an image with its content moved by ``-shift`` (windowed sinc, eight pixels)."""
    for axis, value in zip((-2, -1), shift, strict=True):
        whole = round(float(value))
        offset = np.arange(-_TAPS, _TAPS + 1) - (value - whole)
        kernel = np.sinc(offset) * np.cos(np.pi * offset / (2 * _TAPS + 2)) ** 2
        image = _rolled(image, whole, axis)
        if value != whole:
            image = ndimage.correlate1d(image, kernel / kernel.sum(), axis, mode="nearest")
    return image


def moved_weight(weight: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return weights moved by ``-shift``, 0 where nothing was."""
    for axis, value in zip((-2, -1), shift, strict=True):
        whole = round(float(value))
        part = value - whole
        kernel = [max(0.0, -part), 1 - abs(part), max(0.0, part)]
        weight = ndimage.correlate1d(_rolled(weight, whole, axis), kernel, axis, mode="constant")
    return weight


def _rolled(image: np.ndarray, whole: int, axis: int) -> np.ndarray:
    """Return an image moved by ``-whole`` pixels along an axis, filled with 0."""
    if not whole:
        return image
    result = np.zeros_like(image)
    size = image.shape[axis]
    kept = max(0, size - abs(whole))
    source = [slice(None)] * image.ndim
    target = list(source)
    source[axis] = slice(max(0, whole), max(0, whole) + kept)
    target[axis] = slice(max(0, -whole), max(0, -whole) + kept)
    result[tuple(target)] = image[tuple(source)]
    return result


def _by_window(image: np.ndarray) -> np.ndarray:
    """Split ``(N, H, W)`` into windows, ``(N * windows, pixels)`` or, of more, in order."""
    size = WINDOW_PX
    count, rows, cols = image.shape[0], image.shape[1] // size, image.shape[2] // size
    cut = image[:, : rows * size, : cols * size].reshape(count, rows, size, cols, size)
    return cut.transpose(0, 1, 3, 2, 4).reshape(count * rows * cols, size * size)


def _halved(image: np.ndarray) -> np.ndarray:
    rows, cols = (size // 2 * 2 for size in image.shape[-2:])
    even = image[..., :rows, :cols]
    rows_done = even[..., ::2, :] + even[..., 1::2, :]
    return (rows_done[..., ::2] + rows_done[..., 1::2]) / 4


def _texture(passed: np.ndarray, weight: np.ndarray) -> float:
    power = np.einsum("nbhw,nbhw,nhw->b", passed, passed, weight) / weight.sum()
    return float(np.sqrt(power.max()))


def _mean(image: np.ndarray, sigma: float) -> np.ndarray:
    for axis in (-2, -1):
        image = ndimage.gaussian_filter1d(image, sigma, axis, mode="nearest", truncate=3)
    return image


def _divided(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    bottom = np.broadcast_to(bottom, shape)
    return np.divide(top, bottom, out=np.zeros(shape, top.dtype), where=bottom > 1e-6)


def _vertex(values: np.ndarray, place: int) -> float:
    """Return how far the vertex of a parabola lies off the greatest of three values."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, here, after = values[place - 1 : place + 2]
    bend = before - 2 * here + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend else 0.0


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
