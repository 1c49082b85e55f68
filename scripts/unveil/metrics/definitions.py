r"""Unveil's own metrics, each defined once: formula, unit, source.

Arrays are reflectance 0...1, ``(B, H, W)``, with ``valid`` a bool ``(H, W)`` mask shared by
the bands (default: every pixel). Values outside ``valid`` may be anything, NaN included.
All sums are float64: float32 means over large images are wrong in the second to fourth
digit. "Over bands" pools pixels and bands alike, :math:`P` pixels times :math:`B` bands;
one band is ``x[b : b + 1]``. Functions return NaN where a metric is undefined (no valid
pixel, no variance); the tables then hold an empty value.

Reflectance is never clipped and the data range is 1 by definition, never guessed from
the data.
"""

from __future__ import annotations

import numpy as np

DATA_RANGE = 1.0
SSIM_RADIUS = 5
SSIM_SIGMA = 1.5
SSIM_K1, SSIM_K2 = 0.01, 0.03
MIN_WINDOW_WEIGHT = 0.5
"""Masked SSIM: least Gaussian weight of valid pixels for a window to count."""

FLAT = 1e-12
"""Variance, relative to power, below which float64 sums cannot tell an image from a flat one."""

_STRIP, _BLOCK = 16, 512


def mae(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    r"""Mean absolute error over bands, in reflectance.

    .. math:: \frac{1}{PB} \sum |p - t|
    """
    return mean_over(np.abs(difference(prediction, truth)), valid)


def mae_level_removed(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> float:
    r"""Mean absolute error once the mean error of each band is taken off, in reflectance.

    A truth of another day lies higher or lower all over; so does an image that misses the light
    of its day. What stays is the error of the pattern.

    .. math:: \frac{1}{PB} \sum |p - t - \overline{(p - t)}_b|
    """
    error = pixels(difference(prediction, truth), valid)
    if not error.size:
        return float("nan")
    return float(np.mean(np.abs(error - error.mean(axis=1, keepdims=True))))


def rmse(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    r"""Root mean squared error over bands, in reflectance.

    .. math:: \sqrt{\frac{1}{PB} \sum (p - t)^2}
    """
    error = pixels(difference(prediction, truth), valid)
    # In place, and no dot product: BLAS threads are slow beyond measure on a busy machine.
    return float(np.sqrt(np.mean(np.square(error, out=error)))) if error.size else float("nan")


def bias(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    r"""Mean signed error over bands, in reflectance; positive is too bright.

    .. math:: \frac{1}{PB} \sum (p - t)
    """
    return mean_over(difference(prediction, truth), valid)


def psnr(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    r"""Peak signal-to-noise ratio in dB for a data range of 1; infinite without error.

    .. math:: -20 \log_{10} \mathrm{RMSE}

    with the RMSE over pixels and bands together.
    """
    return psnr_from_rmse(rmse(prediction, truth, valid))


def psnr_from_rmse(value: float) -> float:
    """Return the PSNR in dB that belongs to an RMSE in reflectance."""
    return float(20 * np.log10(DATA_RANGE / value)) if value != 0 else float("inf")


def r2(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    r"""Coefficient of determination; 1 is perfect, 0 is no better than each band's mean.

    .. math:: 1 - \frac{\sum_b \sum (p_b - t_b)^2}{\sum_b \sum (t_b - \bar t_b)^2}

    The deviation is taken about the mean of each band, so differences between bands do not
    count as variance explained. NaN when the truth is constant.
    """
    chosen = pixels(truth, valid)
    residual = np.sum((pixels(prediction, valid) - chosen) ** 2)
    if chosen.size == 0:
        return float("nan")
    spread = np.sum((chosen - chosen.mean(axis=1, keepdims=True)) ** 2)
    varies = spread > FLAT * np.sum(chosen**2)
    return float(1 - residual / spread) if varies else float("nan")


def sam(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean spectral angle over pixels, in degrees (see :func:`sam_map`); NaN of one band."""
    if np.shape(truth)[0] < 2:
        return float("nan")
    return mean_over(sam_map(prediction, truth)[None], valid)


def sam_map(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    r"""Spectral angle of each pixel in degrees, ``(H, W)`` float64.

    .. math:: 2 \arctan \frac{\| |t| p - |p| t \|}{\| |t| p + |p| t \|}

    The angle of Kruse et al. (1993, doi:10.1016/0034-4257(93)90013-N) in the form of
    Kahan (2006, "How futile are mindless assessments of roundoff"), which stays exact for
    small angles where the arccosine loses half of the digits. Two zero spectra are at 0
    degrees, a zero spectrum and another one at 90.
    """
    p, t = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    length_p, length_t = np.sqrt(np.sum(p * p, axis=0)), np.sqrt(np.sum(t * t, axis=0))
    p, t = p * length_t, t * length_p
    opposite = np.sqrt(np.sum((p - t) ** 2, axis=0))
    adjacent = np.sqrt(np.sum((p + t) ** 2, axis=0))
    angle = np.degrees(2 * np.arctan2(opposite, adjacent))
    return np.where((length_p == 0) != (length_t == 0), 90.0, angle)


def ssim(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Structural similarity, mean over pixels and bands (see :func:`ssim_map`).

    NaN when the image is smaller than the window or no window has enough valid pixels.
    """
    if min(np.shape(truth)[1:]) <= 2 * SSIM_RADIUS:
        return float("nan")
    image, counted = ssim_map(prediction, truth, valid)
    return mean_over(image, counted)


def ssim_map(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    r"""Structural similarity of each pixel and band, and where it counts.

    .. math:: \frac{(2 \mu_p \mu_t + C_1)(2 \sigma_{pt} + C_2)}
              {(\mu_p^2 + \mu_t^2 + C_1)(\sigma_p^2 + \sigma_t^2 + C_2)}

    Wang et al. (2004, doi:10.1109/TIP.2003.819861): Gaussian window of 11 x 11 pixels,
    sigma 1.5, K1 = .01, K2 = .03, range 1, population variances. Pixels within 5 of the
    image border, whose window would leave the image, are cropped, as scikit-image does in
    its mean. Masked: the window's weights are renormalised over the valid pixels in it; a
    pixel counts when it is valid itself and valid pixels hold at least half of its
    window's weight. With everything valid this is the plain definition. Valid is what has data,
    of whatever region: near the rim of a cloud the window of a hidden pixel holds pixels that
    were never hidden, and so flatters a little what is hidden in narrow strips.

    Args:
        prediction: ``(B, H, W)``, H and W at least 11.
        truth: ``(B, H, W)``.
        valid: ``(H, W)`` bool.

    Returns:
        Float64 ``(B, H - 10, W - 10)`` and bool ``(H - 10, W - 10)``.
    """
    shape = np.shape(truth)
    crop = (slice(SSIM_RADIUS, -SSIM_RADIUS), slice(SSIM_RADIUS, -SSIM_RADIUS))
    inner = tuple(size - 2 * SSIM_RADIUS for size in shape[1:])
    if valid is None or valid.all():
        weight, counted = None, np.ones(inner, bool)
    else:
        weight = gaussian_mean(valid.astype(np.float64))
        counted = valid[crop] & (weight >= MIN_WINDOW_WEIGHT)
        weight = np.where(counted, weight, 1.0)
    out = np.empty((shape[0], *inner))
    for band in range(shape[0]):
        p, t = np.asarray(prediction[band], np.float64), np.asarray(truth[band], np.float64)
        if valid is not None and weight is not None:
            p, t = np.where(valid, p, 0.0), np.where(valid, t, 0.0)
        out[band] = _ssim_band(p, t, weight)
    return out, counted


def _ssim_band(p: np.ndarray, t: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    moments = [gaussian_mean(x) for x in (p, t, p * p + t * t, p * t)]
    if weight is not None:
        moments = [x / weight for x in moments]
    return similarity(*moments)


def similarity(
    mean_p: np.ndarray, mean_t: np.ndarray, power: np.ndarray, product: np.ndarray
) -> np.ndarray:
    """SSIM from the window's means of p, t, p^2 + t^2 and p t, for a data range of 1."""
    c1, c2 = (SSIM_K1 * DATA_RANGE) ** 2, (SSIM_K2 * DATA_RANGE) ** 2
    # The two variances appear only as their sum, which saves one of five filters.
    means, mixed = mean_p**2 + mean_t**2, mean_p * mean_t
    upper = (2 * mixed + c1) * (2 * (product - mixed) + c2)
    return upper / ((means + c1) * (power - means + c2))


def gaussian_mean(image: np.ndarray) -> np.ndarray:
    """Gaussian-weighted mean of 11 x 11 pixels, sigma 1.5, ``(H, W)`` -> ``(H-10, W-10)``.

    A banded matrix times strips of the image: the same sums as a separable convolution,
    at the speed of the matrix product, about three times that of a filter routine. The
    strips are small, so the product stays within one thread and in the cache: many small
    products over threads are slow beyond measure on a machine that is busy.
    """
    out = np.empty([size - 2 * SSIM_RADIUS for size in image.shape])
    for i in range(0, out.shape[0], _BLOCK):
        for j in range(0, out.shape[1], _BLOCK):
            block = image[i : i + _BLOCK + 10, j : j + _BLOCK + 10]
            _gaussian_block(block, out[i : i + _BLOCK, j : j + _BLOCK])
    return out


def _gaussian_block(image: np.ndarray, out: np.ndarray) -> None:
    height, width = out.shape
    rows = np.empty((height, image.shape[1]))
    for i in range(0, height, _STRIP):
        n = min(_STRIP, height - i)
        np.matmul(_BAND[:n, : n + 10], image[i : i + n + 10], out=rows[i : i + n])
    for j in range(0, width, _STRIP):
        n = min(_STRIP, width - j)
        np.matmul(rows[:, j : j + n + 10], _BAND[:n, : n + 10].T, out=out[:, j : j + n])


def _gaussian_band() -> np.ndarray:
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    window = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    band = np.zeros((_STRIP, _STRIP + 2 * SSIM_RADIUS))
    for row in range(_STRIP):
        band[row, row : row + offsets.size] = window / window.sum()
    return band


_BAND = _gaussian_band()


def normalised_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``(first - second) / (first + second)`` in float64; 0 where the sum is not positive."""
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    total = first + second
    positive = total > 0
    return np.where(positive, first - second, 0.0) / np.where(positive, total, 1.0)


def ndvi(red: np.ndarray, nir: np.ndarray) -> np.ndarray:
    """Normalised difference vegetation index (Rouse et al. 1974), ``(nir-red)/(nir+red)``."""
    return normalised_difference(nir, red)


def ndwi(green: np.ndarray, nir: np.ndarray) -> np.ndarray:
    """Normalised difference water index (McFeeters 1996, doi:10.1080/01431169608948714)."""
    return normalised_difference(green, nir)


def gradients(image: np.ndarray) -> np.ndarray:
    """Central differences east and south, ``(B, H, W)`` -> ``(2, B, H-2, W-2)`` per pixel."""
    image = np.asarray(image, np.float64)
    east = (image[:, 1:-1, 2:] - image[:, 1:-1, :-2]) / 2
    south = (image[:, 2:, 1:-1] - image[:, :-2, 1:-1]) / 2
    return np.stack([east, south])


def has_neighbours(valid: np.ndarray) -> np.ndarray:
    """Where a pixel and its four neighbours are valid, ``(H, W)`` -> ``(H-2, W-2)``."""
    sides = valid[1:-1, 2:] & valid[1:-1, :-2] & valid[2:, 1:-1] & valid[:-2, 1:-1]
    return valid[1:-1, 1:-1] & sides


def gradient_correlation(
    prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None
) -> float:
    r"""Edge preservation: Pearson correlation of the image gradients, -1...1.

    .. math:: \frac{\sum_b \mathrm{cov}(\nabla p_b, \nabla t_b)}
              {\sqrt{\sum_b \mathrm{var}(\nabla p_b) \sum_b \mathrm{var}(\nabla t_b)}}

    over the central differences in both directions at pixels whose four neighbours are
    valid too. Blur, displaced edges and invented texture lower it; brightness does not
    change it. NaN where either image is flat.
    """
    inside = None if valid is None else has_neighbours(valid)
    p, t = (
        np.concatenate([pixels(g, inside) for g in gradients(x)], axis=1)
        for x in (prediction, truth)
    )
    if p.size == 0:
        return float("nan")
    of_p, of_t = p - p.mean(axis=1, keepdims=True), t - t.mean(axis=1, keepdims=True)
    spread_p, spread_t = np.sum(of_p**2), np.sum(of_t**2)
    if spread_p <= FLAT * np.sum(p**2) or spread_t <= FLAT * np.sum(t**2):
        return float("nan")
    return float(np.sum(of_p * of_t) / np.sqrt(spread_p * spread_t))


def seam(
    prediction: np.ndarray,
    truth: np.ndarray,
    hidden: np.ndarray,
    valid: np.ndarray | None = None,
) -> float:
    r"""Visibility of the border of the removed cloud, in reflectance; 0 is invisible.

    .. math:: \overline{|e_i - e_j|}_{i\,hidden,\ j\,clear}
              - \overline{|e_i - e_j|}_{i,j\,hidden}, \qquad e = p - t

    The step of the error between direct neighbours across the border of ``hidden``, in
    excess of the step between neighbours inside it. Edges of the land cancel in the error,
    so only an edge that the model has made counts. May be slightly negative. NaN without
    a border or without an inside.

    Args:
        prediction: ``(B, H, W)``.
        truth: ``(B, H, W)``.
        hidden: ``(H, W)`` bool, the occluded pixels.
        valid: ``(H, W)`` bool.
    """
    error = difference(prediction, truth)
    valid = np.ones(error.shape[1:], bool) if valid is None else valid
    steps, across, inside = neighbour_steps(error, hidden, valid)
    return mean_over(steps, across) - mean_over(steps, inside)


def neighbour_steps(
    error: np.ndarray, hidden: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps of the error to the east and south neighbour of each pixel.

    Returns:
        ``(B, H, 2W)`` float64 absolute steps (east, then south; 0 at the image's end) and
        two ``(H, 2W)`` bool masks: pairs across the border of ``hidden``, pairs inside it.
    """
    blank = np.zeros_like(hidden)
    steps, across, inside = [], [], []
    for here, there in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        step = np.zeros(error.shape)
        step[:, *here] = np.abs(error[:, *there] - error[:, *here])
        both = valid[here] & valid[there]
        border, interior = blank.copy(), blank.copy()
        border[here] = both & (hidden[here] != hidden[there])
        interior[here] = both & hidden[here] & hidden[there]
        steps.append(step)
        across.append(border)
        inside.append(interior)
    return np.concatenate(steps, 2), np.concatenate(across, 1), np.concatenate(inside, 1)


def difference(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the error ``prediction - truth`` in float64.

    Raises:
        ValueError: if the shapes differ.
    """
    if np.shape(prediction) != np.shape(truth):
        raise ValueError(f"shapes differ: {np.shape(prediction)} and {np.shape(truth)}")
    return np.subtract(prediction, truth, dtype=np.float64)


def pixels(image: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Return the valid pixels as float64 ``(B, P)``."""
    image = np.asarray(image, np.float64)
    return image.reshape(len(image), -1) if valid is None else image[:, valid]


def mean_over(image: np.ndarray, valid: np.ndarray | None) -> float:
    """Return the float64 mean over valid pixels and bands; NaN when there are none."""
    chosen = pixels(image, valid)
    return float(chosen.mean()) if chosen.size else float("nan")
